//! The namespace machine.
