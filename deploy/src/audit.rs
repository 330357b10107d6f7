//! `ff2ctl audit`: who changed what of the cluster, from the logs of all metads.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use ff2_proto::pb;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{cli::Surroundings, connect::Admin, output::table};

const POLL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what was recorded since then: seconds, or with a unit (90m, 12h, 7d).
    #[arg(long, value_name = "AGO", value_parser = ago)]
    since: Option<Duration>,
    /// Go on with what comes, until interrupted.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let admin = around.access.connect()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    let since_ms = args.since.map_or(0, |ago| millis(now.saturating_sub(ago)));
    let mut reading = Reading { since_ms, ..Reading::default() };
    let silent = reading.read(&admin).await?;
    for (address, why) in &silent {
        eprintln!("ff2ctl: metad {address} does not tell what was done by it: {why}");
    }
    around.output.print(&Value::Array(reading.take(true)), || text(&reading.shown))?;
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(POLL).await;
        reading.read(&admin).await?;
        for action in reading.take(false) {
            let json = around.output.is_json();
            let line = if json { action.to_string() } else { row(&action).join("  ") };
            println!("{line}");
        }
    }
}

/// What was read of the logs.
#[derive(Debug, Default)]
struct Reading {
    since_ms: u64,
    /// Where each metad's log is read on.
    places: BTreeMap<String, (u64, u64)>,
    /// By id: begun, and not ended as far as was read.
    open: BTreeMap<String, Value>,
    /// Whole, in the order of their times.
    ready: Vec<Value>,
    shown: Vec<Value>,
}

impl Reading {
    /// Reads all that is new. Answers which metads did not tell.
    async fn read(&mut self, admin: &Admin) -> Result<Vec<(String, String)>> {
        let mut silent = Vec::new();
        let metads = admin.addresses();
        for address in &metads {
            loop {
                let (file, offset) = self.places.get(address).copied().unwrap_or_default();
                let request = pb::ReadAuditRequest { file, offset, since_ms: self.since_ms };
                match admin.read_audit_of(address, request).await {
                    Ok(reply) => {
                        self.places.insert(address.clone(), (reply.file, reply.offset));
                        self.take_in(&reply.lines);
                        if !reply.more {
                            break;
                        }
                    }
                    Err(error) if error.is::<crate::connect::Final>() => return Err(error),
                    Err(error) => {
                        silent.push((address.clone(), format!("{error:#}")));
                        break;
                    }
                }
            }
        }
        ensure!(silent.len() < metads.len(), "no metad tells its audit log: {silent:?}");
        Ok(silent)
    }

    /// An action's two lines become one.
    fn take_in(&mut self, lines: &[String]) {
        for line in lines {
            // What a crash cut off says nothing.
            let Ok(mut line) = serde_json::from_str::<Value>(line) else { continue };
            let id = line["id"].as_str().unwrap_or_default().to_owned();
            if line["outcome"] == "begun" {
                self.open.insert(id, line);
            } else if let Some(mut action) = self.open.remove(&id) {
                action["outcome"] = line["outcome"].take();
                action["took_ms"] = took(&action, &line).into();
                if !line["why"].is_null() {
                    action["why"] = line["why"].take();
                }
                self.ready.push(action);
            } else if !line["call"].is_null() {
                self.ready.push(line);
            }
        }
    }

    /// What is whole by now; `all`: also what is begun.
    fn take(&mut self, all: bool) -> Vec<Value> {
        let mut taken = std::mem::take(&mut self.ready);
        if all {
            // Their ends are told when they come.
            taken.extend(self.open.values().cloned());
        }
        taken.sort_by_key(|action| action["at_ms"].as_u64());
        self.shown.clone_from(&taken);
        taken
    }
}

fn took(begun: &Value, ended: &Value) -> u64 {
    let at = |line: &Value| line["at_ms"].as_u64().unwrap_or_default();
    at(ended).saturating_sub(at(begun))
}

fn text(actions: &[Value]) -> String {
    let head = ["WHEN", "USER", "ROLE", "TOKEN", "FROM", "METAD", "CALL", "OUTCOME"];
    table(&head, actions.iter().map(row))
}

fn row(action: &Value) -> Vec<String> {
    let word = |key: &str| match &action[key] {
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let call = match &action["arguments"] {
        Value::Object(args) if !args.is_empty() => {
            let args = args.iter().map(|(name, value)| format!("{name}={value}"));
            format!("{} {}", word("call"), args.collect::<Vec<_>>().join(" "))
        }
        _ => word("call"),
    };
    let outcome = match action["why"].as_str() {
        Some(why) => format!("{}: {why}", word("outcome")),
        None => word("outcome"),
    };
    let at_ms = i128::from(action["at_ms"].as_u64().unwrap_or_default());
    let when = OffsetDateTime::from_unix_timestamp_nanos(at_ms * 1_000_000).ok();
    let when = when.and_then(|when| when.format(&Rfc3339).ok()).unwrap_or_else(|| word("at_ms"));
    vec![
        when,
        word("user"),
        word("role"),
        word("token"),
        word("address"),
        word("node"),
        call,
        outcome,
    ]
}

/// A time as people write it: `90`, `90m`, `12h`, `7d`.
pub(crate) fn ago(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        other => return Err(format!("{other:?}: neither s, m, h nor d")),
    };
    let count: u64 =
        digits.parse().map_err(|_| "a number of seconds, or 90m, 12h, 7d".to_owned())?;
    Ok(Duration::from_secs(count.saturating_mul(unit)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_an_action_become_one() {
        let mut reading = Reading::default();
        let lines = [
            r#"{"at_ms":20,"id":"a","user":"ann","call":"set_draining","arguments":{"node":101},"outcome":"begun"}"#,
            r#"{"at_ms":10,"user":"bob","call":"issue_token","outcome":"refused","why":"needs admin"}"#,
            "{\"cut off",
            r#"{"at_ms":30,"id":"b","user":"ann","call":"start_scrub","outcome":"begun"}"#,
            r#"{"at_ms":25,"id":"a","outcome":"done"}"#,
            r#"{"at_ms":26,"id":"of a file that is gone","outcome":"done"}"#,
        ];
        reading.take_in(&lines.map(str::to_owned));
        let shown = reading.take(true);
        let outcomes: Vec<_> =
            shown.iter().map(|action| action["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["refused", "done", "begun"], "in the order of their times");
        assert_eq!(shown[1]["took_ms"], 5);
        let text = text(&shown);
        assert!(
            text.contains("set_draining node=101") && text.contains("refused: needs admin"),
            "{text}"
        );
    }

    #[test]
    fn times_have_units() {
        assert_eq!(ago("90m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(ago("7"), Ok(Duration::from_secs(7)));
        assert!(ago("7w").is_err() && ago("h").is_err());
    }
}
