//! The server as clients meet it, on loopback, with a small model of random weights. One program: each links the whole
//! stack.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod api;
mod browser;
mod common;
mod crowd;
mod guard;
mod page;
mod program;
mod route;
mod structured;
