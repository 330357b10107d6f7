//! What a user hands in as a job: read from a batch script, from YAML or from a command line, and written as
//! YAML again.
//!
//! It owns the notation, which is Slurm's where Slurm has one, and tells people all that is wrong at once, with
//! the place. It never does I/O: whoever has a file or a command line hands over its text. What becomes of a job
//! is the scheduler's matter.
//!
//! The story of the data: [`from_script`] or [`from_yaml`] makes a [`JobRequest`], [`apply_arguments`] puts
//! flags over it, [`JobRequest::check`] tells whether its parts agree, and [`JobRequest::layout`] what they
//! come to in nodes, ranks and GPUs. [`to_yaml`] writes what was said and no more.
#![forbid(unsafe_code)]

mod arguments;
mod array;
mod check;
mod checkpoint;
mod dependency;
mod gpus;
mod inherit;
mod layout;
pub mod limits;
mod memory;
mod options;
mod order;
mod pattern;
mod priority;
mod problem;
mod request;
mod script;
mod signal;
mod text;
mod time;
mod words;
mod yaml;

pub use arguments::apply_arguments;
pub use array::Array;
pub use check::{Contradiction, Contradictions};
pub use checkpoint::Checkpoint;
pub use dependency::{Dependencies, Dependency, JobRef};
pub use gpus::Gpus;
pub use inherit::Inherit;
pub use layout::Layout;
pub use memory::Memory;
pub use order::{Order, Submitter};
pub use pattern::{FilePattern, Names};
pub use priority::Priority;
pub use problem::{Malformed, Place, Problem, Problems, Warning};
pub use request::JobRequest;
pub use script::from_script;
pub use signal::{Grace, Signal};
pub use time::TimeLimit;
pub use yaml::{from_yaml, to_yaml};
