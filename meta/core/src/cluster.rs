//! The cluster machine.
