//! `ff2ctl user add|list|token|revoke`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ff2_fabric::UserToken;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, connect::Admin, output::table};

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All users and the ids of their tokens.
    List,
    /// Add a user, or replace what is known about one.
    ///
    /// A token carries the ids, groups and rights that its user had when it was made. One that is out keeps
    /// them: after a change make a new token, and revoke the old one.
    Add(Add),
    /// Make a token with which a user mounts.
    Token(Token),
    /// Make a token useless, everywhere, within moments.
    Revoke {
        /// As `user list` shows it.
        token_id: u64,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Add {
    name: String,
    #[arg(long)]
    uid: u32,
    /// [default: the uid]
    #[arg(long)]
    gid: Option<u32>,
    /// Supplementary groups.
    #[arg(long, value_delimiter = ',', value_name = "GID")]
    groups: Vec<u32>,
    /// May speak for every uid (a mount for all users of a host), and administer.
    #[arg(long)]
    root: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Token {
    /// Name or uid.
    user: String,
    /// Days until it expires [default: never]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    days: u64,
    /// Confine it to this folder of the volume: nothing outside exists for it.
    #[arg(long, value_name = "PATH")]
    subtree: Option<String>,
    /// What it is for: `admin` everything; `operator` runs the servers, without users, tokens and whatever
    /// removes data; `viewer` looks; `user` opens files and administers nothing [default: admin for a root
    /// user, else user]
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// Of that folder [default: default]
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Write it to this file, for this user only, instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RoleArg {
    Admin,
    Operator,
    Viewer,
    User,
}

impl From<RoleArg> for pb::TokenRole {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Admin => Self::Admin,
            RoleArg::Operator => Self::Operator,
            RoleArg::Viewer => Self::Viewer,
            RoleArg::User => Self::Files,
        }
    }
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    let admin = around.access.connect()?;
    match command {
        Command::List => list(around, &admin).await,
        Command::Add(args) => add(around, &admin, args).await,
        Command::Token(args) => token(around, &admin, args).await,
        Command::Revoke { token_id } => {
            admin.revoke_token(pb::RevokeTokenRequest { token_id: *token_id }).await?;
            let value = json!({ "revoked": token_id });
            around.output.print(&value, || format!("revoked token {token_id}"))
        }
    }
}

async fn list(around: &Surroundings, admin: &Admin) -> Result<()> {
    let users = admin.list_users(pb::ListUsersRequest {}).await?.users;
    let value = users.iter().map(show).collect();
    around.output.print(&Value::Array(value), || {
        let join = |ids: Vec<String>| if ids.is_empty() { "-".to_owned() } else { ids.join(", ") };
        let rows = users.iter().map(|user| {
            vec![
                user.name.clone(),
                user.uid.to_string(),
                user.gid.to_string(),
                join(user.groups.iter().map(ToString::to_string).collect()),
                if user.root { "yes" } else { "no" }.to_owned(),
                join(user.token_ids.iter().map(ToString::to_string).collect()),
            ]
        });
        table(&["USER", "UID", "GID", "GROUPS", "ROOT", "TOKENS"], rows)
    })
}

fn show(user: &pb::User) -> Value {
    json!({
        "name": user.name, "uid": user.uid, "gid": user.gid, "groups": user.groups,
        "root": user.root, "token_ids": user.token_ids,
    })
}

async fn add(around: &Surroundings, admin: &Admin, args: &Add) -> Result<()> {
    let known = admin.list_users(pb::ListUsersRequest {}).await?.users;
    let before = known.into_iter().find(|user| user.uid == args.uid);
    let user = pb::User {
        uid: args.uid,
        gid: args.gid.unwrap_or(args.uid),
        groups: args.groups.clone(),
        name: args.name.clone(),
        root: args.root,
        token_ids: before.map(|user| user.token_ids).unwrap_or_default(),
    };
    admin.put_user(pb::PutUserRequest { user: Some(user.clone()) }).await?;
    around.output.print(&show(&user), || {
        format!("added {0} (uid {1}); `ff2ctl user token {0}` makes a token", user.name, user.uid)
    })
}

async fn token(around: &Surroundings, admin: &Admin, args: &Token) -> Result<()> {
    let users = admin.list_users(pb::ListUsersRequest {}).await?.users;
    let user = users
        .iter()
        .find(|user| user.name == args.user || user.uid.to_string() == args.user)
        .with_context(|| {
            format!("there is no user {0:?}; `ff2ctl user add {0} --uid UID` adds one", args.user)
        })?;
    let lifetime_s = args.days.saturating_mul(24 * 3_600);
    let request = pb::IssueTokenRequest {
        uid: user.uid,
        lifetime_s,
        subtree: args.subtree.clone().unwrap_or_default().into_bytes().into(),
        volume: args.volume.clone().unwrap_or_default(),
        role: args.role.map_or(pb::TokenRole::ByRoot, Into::into).into(),
    };
    let reply = admin.issue_token(request).await?;
    let mut value = json!({ "user": user.name, "token_id": reply.token_id });
    match &args.out {
        None => {
            value["token"] = reply.token.clone().into();
            around.output.print(&value, || reply.token)
        }
        Some(path) => {
            let token: UserToken = reply.token.parse().context("read the token that metad made")?;
            token.save(path).with_context(|| format!("write {}", path.display()))?;
            value["file"] = path.display().to_string().into();
            around.output.print(&value, || {
                format!("wrote token {} of {} to {}", reply.token_id, user.name, path.display())
            })
        }
    }
}
