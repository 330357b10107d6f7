//! The handshake: each side proves that it knows the key.
