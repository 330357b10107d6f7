//! raft-rs logs through slog; its records go on to `tracing`, one level lower where they are chatter.

use ff2_proto::GroupId;
use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, o};

struct Tracing;

/// The logger of a group's raft.
pub(crate) fn logger(group: GroupId) -> Logger {
    Logger::root(Tracing.fuse(), o!("group" => group.0))
}

/// Pairs of a record as text, for `tracing` has only static field names.
struct Fields(String);

impl slog::Serializer for Fields {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write as _;
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

impl Drain for Tracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let text = || {
            use slog::KV as _;
            let mut fields = Fields(record.msg().to_string());
            // Formatting into a String does not fail.
            let _ = values.serialize(record, &mut fields);
            let _ = record.kv().serialize(record, &mut fields);
            fields.0
        };
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", "{}", text()),
            // raft-rs warns of what is normal in elections.
            Level::Warning => tracing::info!(target: "raft", "{}", text()),
            Level::Info => tracing::debug!(target: "raft", "{}", text()),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{}", text()),
        }
        Ok(())
    }
}
