//! What programs do with a mount, by suites and programs that are not ours: each on a cluster of its own.
//!
//! `FF2_TEST_ROUNDS=20 cargo nextest run -E 'binary(suites)'` runs them for longer, with other seeds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod dbench;
mod fio;
mod fsx;
mod git;
mod programs;
mod sqlite;
mod stress;
