//! The transports behind one closed enum.
