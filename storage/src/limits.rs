//! Bounds of the chunk server.
