//! Bounds of the CRAQ machine and of what a chunk remembers.
