//! Who may ask, and how much: API keys and what each may take up. Nobody signs up: keys come from the operator's
//! command line alone, so an attack has nothing to close.

pub mod accounts;
pub mod gate;
pub mod keys;
pub mod permit;
pub mod rates;
pub mod strangers;
pub mod watch;
