//! Connections over TCP.
