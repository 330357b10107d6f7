//! The pure half of the chunk server: what is decided, never what is done.
//!
//! Owns the CRAQ target machine ([`target`]), the exactly-once tags ([`tags`]), the resync planner
//! ([`resync`]), what is known of cut ways to others ([`cuts`]), and, for the chunk engine, the block
//! allocator ([`alloc`]), the update planner ([`plan`]) and the on-disk format
//! ([`format`](mod@format)). It never does I/O, reads no clock and draws no random number, so that
//! `ff2-storaged` and the simulator drive the same code.
#![forbid(unsafe_code)]

pub mod alloc;
pub mod cuts;
pub mod format;
pub mod limits;
pub mod plan;
pub mod resync;
pub mod tags;
pub mod target;
