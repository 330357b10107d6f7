//! What every ff2 process has around its work: typed config, logs, metrics, admin socket, shutdown, fault points.
pub mod config;
