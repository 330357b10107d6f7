//! Flow simulator: how fast transfers go that share the links of a network, without simulating packets.
//!
//! It never does I/O and has no clock or randomness: the same input gives the same output. `ff2ctl fabric simulate`
//! calls it.
//!
//! The story of the data: a [`workload`] gives pairs of endpoints, [`Traffic::flows`] sends them by the tables,
//! [`Rates`] shares the links max-min fairly and keeps doing so as flows come and go, [`Report::new`] tells what
//! binds whom, and [`completion`] runs until all bytes are sent. [`model`] has the points known of real clusters.
#![forbid(unsafe_code)]

pub mod completion;
mod fill;
pub mod hfreduce;
pub mod model;
mod paths;
mod rates;
mod report;
mod settle;
pub mod workload;

pub use rates::{Class, Flow, Rates};
pub use report::{Report, Use};
pub use workload::{Traffic, Transfer};
