//! `ff2ctl session list`.

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{cli::Surroundings, output::table};

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Mounts and library users that the metads know.
    List,
}

pub(crate) async fn run(around: &Surroundings, command: Command) -> Result<()> {
    let Command::List = command;
    let reply = around.access.connect()?.list_sessions(pb::ListSessionsRequest {}).await?;
    let cached =
        |session: &pb::SessionRecord| reply.callbacks.get(&session.id).copied().unwrap_or(0);
    let value = reply.sessions.iter().map(|session| {
        json!({
            "id": session.id, "description": session.description, "opened": opened(session),
            "cached_inodes": cached(session),
        })
    });
    around.output.print(&Value::Array(value.collect()), || {
        let rows = reply.sessions.iter().map(|session| {
            let cached = cached(session).to_string();
            vec![session.id.to_string(), opened(session), cached, session.description.clone()]
        });
        table(&["SESSION", "OPENED", "CACHED", "WHO"], rows)
    })
}

/// To the second: `2026-01-31T12:00:00Z`.
fn opened(session: &pb::SessionRecord) -> String {
    let at = OffsetDateTime::from_unix_timestamp(session.opened_ns / 1_000_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_people() {
        let session = pb::SessionRecord { opened_ns: 1_500_000_000, ..Default::default() };
        assert_eq!(opened(&session), "1970-01-01T00:00:01Z");
    }
}
