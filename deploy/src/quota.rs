//! `ff2ctl quota set|get|list|remove|gpus`.

mod gpus;
mod limit;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ff2_proto::pb;
use pb::{quota_key, quota_subject::Of};
use serde_json::{Value, json};

use crate::{bytes::ByteSize, cli::Surroundings, connect::Admin, output::table};
use limit::{Limit, count};

const POLL: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Limit what there may be in a folder, or what a user or a group may own.
    ///
    /// Bytes are lengths of files, whatever the disks need for them; inodes are files, folders and all else that
    /// has a name, a folder with a quota itself included. A limit that is not given stays as it is; `none`
    /// takes it away. What is there already is counted first, while everybody goes on.
    Set(Set),
    /// The quotas that count a folder, a user or a group, and what is used of them.
    Get {
        #[command(flatten)]
        subject: Subject,
    },
    /// All quotas of a volume.
    List {
        /// [default: default]
        #[arg(long, value_name = "NAME")]
        volume: Option<String>,
    },
    /// Limit how many GPUs jobs may have at once: of a user, a group, a priority, or any of these together.
    Gpus(gpus::Args),
    /// Take a quota away; what it counted counts in the one above, if there is any.
    Remove {
        #[command(flatten)]
        subject: Subject,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Set {
    #[command(flatten)]
    subject: Subject,
    /// For example 10GiB, or `none`.
    #[arg(long, value_name = "SIZE")]
    bytes: Option<Limit>,
    /// For example 1M (a million), or `none`.
    #[arg(long, value_name = "COUNT", value_parser = count)]
    inodes: Option<Limit>,
    /// Do not wait until all that is there is counted.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false, id = "whose")]
pub(crate) struct Whose {
    /// Of the volume: the folder with all that is in it.
    path: Option<String>,
    /// Name (of `user list`) or uid.
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
    #[arg(long, value_name = "GID")]
    group: Option<u32>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Subject {
    #[command(flatten)]
    whose: Whose,
    /// [default: default]
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    if let Command::Gpus(args) = command {
        return gpus::run(around, args).await;
    }
    let admin = around.access.connect()?;
    match command {
        Command::Set(args) => set(around, &admin, args).await,
        Command::Gpus(_) => Ok(()),
        Command::Get { subject } => {
            let subject = ask_for(&admin, subject).await?;
            let quotas = all(&admin, &subject.volume, Some(&subject)).await?;
            show(around, &quotas)
        }
        Command::List { volume } => {
            let quotas = all(&admin, volume.as_deref().unwrap_or_default(), None).await?;
            show(around, &quotas)
        }
        Command::Remove { subject } => {
            let subject = Some(ask_for(&admin, subject).await?);
            let reply = admin.remove_quota(pb::RemoveQuotaRequest { subject }).await?;
            let quota = reply.quota.unwrap_or_default();
            let value = json!({ "removed": whose(&quota, false) });
            around.output.print(&value, || format!("removed the quota of {}", whose(&quota, false)))
        }
    }
}

async fn set(around: &Surroundings, admin: &Admin, args: &Set) -> Result<()> {
    ensure!(
        args.bytes.is_some() || args.inodes.is_some(),
        "say what is limited: --bytes SIZE, --inodes COUNT, or both"
    );
    let subject = ask_for(admin, &args.subject).await?;
    let request = pb::SetQuotaRequest {
        subject: Some(subject.clone()),
        bytes: args.bytes.map(Limit::told),
        inodes: args.inodes.map(Limit::told),
    };
    let mut quota = admin.set_quota(request).await?.quota.unwrap_or_default();
    if quota.counting && !args.no_wait {
        quota = follow(around, admin, &subject, quota).await?;
    }
    show(around, &[(quota, false)])
}

/// Until all that is there is counted.
async fn follow(
    around: &Surroundings,
    admin: &Admin,
    subject: &pb::QuotaSubject,
    mut quota: pb::Quota,
) -> Result<pb::Quota> {
    let progress = around.output.progress();
    while quota.counting {
        progress.now(format!("looked at {} inodes", quota.counted));
        tokio::time::sleep(POLL).await;
        let all = all(admin, &subject.volume, Some(subject)).await?;
        let found = all.into_iter().map(|(found, _)| found).find(|found| found.key == quota.key);
        quota = found.context("the quota was removed while it was counted")?;
    }
    progress.finish();
    Ok(quota)
}

async fn ask_for(admin: &Admin, subject: &Subject) -> Result<pb::QuotaSubject> {
    let Whose { path, user, group } = &subject.whose;
    let of = match (path, user, group) {
        (Some(path), None, None) => Of::Path(path.clone().into_bytes().into()),
        (None, Some(user), None) => Of::Uid(uid(admin, user).await?),
        (None, None, Some(gid)) => Of::Gid(*gid),
        _ => bail!("name one of PATH, --user and --group"),
    };
    Ok(pb::QuotaSubject { volume: subject.volume.clone().unwrap_or_default(), of: Some(of) })
}

async fn uid(admin: &Admin, user: &str) -> Result<u32> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    let users = admin.list_users(pb::ListUsersRequest {}).await?.users;
    let found = users.into_iter().find(|known| known.name == user);
    let found = found.with_context(|| {
        format!("there is no user {user:?}; `ff2ctl user list` lists them, or give a uid")
    })?;
    Ok(found.uid)
}

/// With each, whether its folder has another path by now.
async fn all(
    admin: &Admin,
    volume: &str,
    applying_to: Option<&pb::QuotaSubject>,
) -> Result<Vec<(pb::Quota, bool)>> {
    let mut quotas: Vec<(pb::Quota, bool)> = Vec::new();
    loop {
        let after = quotas.last().and_then(|(quota, _)| quota.key);
        let (volume, applying_to) = (volume.to_owned(), applying_to.cloned());
        let request = pb::ListQuotasRequest { volume, applying_to, after };
        let reply = admin.list_quotas(request).await?;
        let is_end = reply.end || reply.quotas.is_empty();
        let moved = reply.moved.into_iter().chain(std::iter::repeat(false));
        quotas.extend(reply.quotas.into_iter().zip(moved));
        if is_end {
            return Ok(quotas);
        }
    }
}

fn show(around: &Surroundings, quotas: &[(pb::Quota, bool)]) -> Result<()> {
    let value = quotas.iter().map(|(quota, moved)| value(quota, *moved)).collect();
    around.output.print(&Value::Array(value), || text(quotas))
}

fn text(quotas: &[(pb::Quota, bool)]) -> String {
    if quotas.is_empty() {
        return "no quota\n".to_owned();
    }
    let rows = quotas.iter().map(|(quota, moved)| {
        let size = |max: Option<u64>| max.map_or("-".to_owned(), |max| ByteSize(max).to_string());
        let number = |max: Option<u64>| max.map_or("-".to_owned(), |max| max.to_string());
        vec![
            whose(quota, *moved),
            ByteSize(quota.bytes).to_string(),
            size(quota.bytes_max),
            quota.inodes.to_string(),
            number(quota.inodes_max),
            state(quota).to_owned(),
        ]
    });
    table(&["OF", "BYTES", "MAX", "INODES", "MAX", "STATE"], rows)
}

fn state(quota: &pb::Quota) -> &'static str {
    let is_over = |max: Option<u64>, used: u64| max.is_some_and(|max| used >= max);
    let is_full = is_over(quota.bytes_max, quota.bytes) || is_over(quota.inodes_max, quota.inodes);
    match (quota.ending, quota.counting) {
        (true, _) => "being removed",
        (false, true) => "being counted",
        (false, false) if is_full => "full",
        (false, false) => "ok",
    }
}

fn whose(quota: &pb::Quota, moved: bool) -> String {
    match quota.key.and_then(|key| key.of) {
        Some(quota_key::Of::Inode(inode)) => {
            let path = String::from_utf8_lossy(&quota.path);
            if moved { format!("inode {inode}, once {path}") } else { path.into_owned() }
        }
        Some(quota_key::Of::Uid(uid)) => format!("user {uid}"),
        Some(quota_key::Of::Gid(gid)) => format!("group {gid}"),
        None => "?".to_owned(),
    }
}

fn value(quota: &pb::Quota, moved: bool) -> Value {
    let mut value = json!({
        "bytes": quota.bytes, "bytes_max": quota.bytes_max, "inodes": quota.inodes,
        "inodes_max": quota.inodes_max, "counting": quota.counting, "counted": quota.counted,
        "ending": quota.ending,
    });
    match quota.key.and_then(|key| key.of) {
        Some(quota_key::Of::Inode(inode)) => {
            value["inode"] = inode.into();
            value["path"] = String::from_utf8_lossy(&quota.path).into();
            value["moved"] = moved.into();
            value["above"] = quota.above.into();
        }
        Some(quota_key::Of::Uid(uid)) => value["uid"] = uid.into(),
        Some(quota_key::Of::Gid(gid)) => value["gid"] = gid.into(),
        None => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> pb::Quota {
        pb::Quota {
            key: Some(pb::QuotaKey { of: Some(quota_key::Of::Inode(7)) }),
            bytes: 5 << 30,
            bytes_max: Some(10 << 30),
            inodes: 12,
            path: b"/home/a".as_slice().into(),
            ..Default::default()
        }
    }

    #[test]
    fn quotas_are_shown_to_people_and_programs() {
        let user = pb::Quota {
            key: Some(pb::QuotaKey { of: Some(quota_key::Of::Uid(1000)) }),
            inodes: 3,
            inodes_max: Some(3),
            ..Default::default()
        };
        let shown = text(&[(folder(), false), (user.clone(), false)]);
        assert!(shown.contains("/home/a") && shown.contains("5 GiB  10 GiB  12      -"), "{shown}");
        assert!(shown.contains("user 1000") && shown.contains("full"), "{shown}");
        assert!(text(&[(folder(), true)]).contains("inode 7, once /home/a"));
        assert_eq!(text(&[]), "no quota\n");
        let told = value(&folder(), false);
        assert_eq!((&told["path"], &told["bytes_max"]), (&json!("/home/a"), &json!(10_u64 << 30)));
        assert_eq!((&told["inodes_max"], &told["inode"]), (&Value::Null, &json!(7)));
        assert_eq!(value(&user, false)["uid"], 1000);
    }
}
