//! `ff2ctl volume export`: the rules of a volume.

use std::str::FromStr;

use anyhow::{Context, Result};
use ff2_proto::{
    exports::Clients,
    pb::{self, ExportAccess, Squash},
};
use serde_json::{Value, json};

use crate::{cli::Surroundings, connect::Admin, output::table};

/// `nobody` and `nogroup`, as NFS has it.
const ANON: u32 = 65_534;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the volume.
    volume: String,
    /// CLIENTS[,rw|ro|none][,none|root|all][,UID:GID], in order; all rules are set anew. CLIENTS: an address, a network
    /// (10.0.0.0/8), or `*`. Then what they may do [default: rw], who of them acts as somebody else [default:
    /// root], and as whom [default: 65534:65534].
    #[arg(long = "rule", value_name = "RULE")]
    rules: Vec<Rule>,
    /// Take all rules away.
    #[arg(long, conflicts_with = "rules")]
    clear: bool,
}

pub(super) async fn run(around: &Surroundings, admin: &Admin, args: &Args) -> Result<()> {
    if !args.rules.is_empty() || args.clear {
        let rules = args.rules.iter().map(|rule| rule.0.clone()).collect();
        let request = pb::SetExportsRequest { volume: args.volume.clone(), rules };
        admin.set_exports(request).await?;
    }
    let volumes = admin.routing().await?.volumes;
    let volume = volumes.iter().find(|volume| volume.name == args.volume);
    let volume = volume.with_context(|| {
        format!("there is no volume {:?}; `ff2ctl volume list` lists them", args.volume)
    })?;
    let value = volume.exports.iter().map(show).collect();
    around.output.print(&Value::Array(value), || match volume.exports.as_slice() {
        [] => "no rules: all clients read and write, and nobody is squashed".to_owned(),
        rules => text(rules),
    })
}

/// One `--rule`.
#[derive(Clone, Debug, PartialEq)]
struct Rule(pb::ExportRule);

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let clients = words.next().unwrap_or_default().to_owned();
        Clients::parse(&clients)?;
        let access = match words.next().unwrap_or("rw") {
            "rw" => ExportAccess::ReadWrite,
            "ro" => ExportAccess::ReadOnly,
            "none" => ExportAccess::Nothing,
            other => return Err(format!("{other:?} is no access: rw, ro or none")),
        };
        let squash = match words.next().unwrap_or("root") {
            "none" => Squash::Nobody,
            "root" => Squash::Root,
            "all" => Squash::Everybody,
            other => return Err(format!("{other:?} is not whom to squash: none, root or all")),
        };
        let (anon_uid, anon_gid) = match words.next() {
            None => (ANON, ANON),
            Some(ids) => {
                let ids = ids
                    .split_once(':')
                    .and_then(|(uid, gid)| uid.parse().ok().zip(gid.parse().ok()));
                ids.ok_or("as whom the squashed act: UID:GID")?
            }
        };
        if words.next().is_some() {
            return Err("a rule has four parts: CLIENTS,ACCESS,SQUASH,UID:GID".into());
        }
        let rule = pb::ExportRule {
            clients,
            access: access.into(),
            squash: squash.into(),
            anon_uid,
            anon_gid,
        };
        ff2_proto::exports::check(std::slice::from_ref(&rule))?;
        Ok(Self(rule))
    }
}

fn words(rule: &pb::ExportRule) -> (&'static str, &'static str) {
    let access = match rule.access() {
        ExportAccess::ReadWrite => "rw",
        ExportAccess::ReadOnly => "ro",
        ExportAccess::Nothing => "none",
    };
    let squash = match rule.squash() {
        Squash::Nobody => "none",
        Squash::Root => "root",
        Squash::Everybody => "all",
    };
    (access, squash)
}

fn show(rule: &pb::ExportRule) -> Value {
    let (access, squash) = words(rule);
    json!({
        "clients": rule.clients, "access": access, "squash": squash,
        "anon_uid": rule.anon_uid, "anon_gid": rule.anon_gid,
    })
}

fn text(rules: &[pb::ExportRule]) -> String {
    let rows = rules.iter().map(|rule| {
        let (access, squash) = words(rule);
        let anon = match rule.squash() {
            Squash::Nobody => "-".to_owned(),
            Squash::Root | Squash::Everybody => format!("{}:{}", rule.anon_uid, rule.anon_gid),
        };
        vec![rule.clients.clone(), access.to_owned(), squash.to_owned(), anon]
    });
    table(&["CLIENTS", "ACCESS", "SQUASHED", "AS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        let rule = |text: &str| text.parse::<Rule>().map(|rule| show(&rule.0));
        let plain = rule("*").unwrap();
        assert_eq!((&plain["access"], &plain["squash"]), (&json!("rw"), &json!("root")));
        assert_eq!(plain["anon_uid"], ANON);
        let full = rule("10.0.0.0/8,ro,all,7:8").unwrap();
        assert_eq!(full["clients"], "10.0.0.0/8");
        assert_eq!((&full["access"], &full["anon_gid"]), (&json!("ro"), &json!(8)));
        for bad in ["", "x", "*,rx", "*,rw,some", "*,rw,root,7", "*,rw,root,0:0", "*,rw,root,7:7,x"]
        {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
