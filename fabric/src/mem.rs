//! Connections inside one process.
