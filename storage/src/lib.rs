//! The chunk server: targets of replication chains, on local disks.
//!
//! Owns the disks ([`disk`]), the chunk engine over them ([`engine`]), one task for each target that
//! drives its pure CRAQ machine, the resync worker, and the data-plane service. It never decides a
//! target's public state (the cluster manager does) and holds no file names.
pub mod disk;
pub mod engine;
pub mod limits;
