//! `ff2-serve key`: the operator's side of API keys. A running server notices changes within seconds.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use ff2_server::guard::keys::{KeyLimits, Keys};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: KeysFile,
    #[command(subcommand)]
    command: Command,
}

/// Where keys are kept.
#[derive(Debug, Args)]
pub(crate) struct KeysFile {
    /// File of API keys, hashed [default: ff2/serve-keys.json in the user's configuration folder]
    #[arg(long, value_name = "FILE", env = "FF2_SERVE_KEYS")]
    keys: Option<PathBuf>,
}

impl KeysFile {
    /// What was said, if anything was.
    pub(crate) fn given(&self) -> Option<PathBuf> {
        self.keys.clone()
    }

    pub(crate) fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.keys {
            return Ok(path.clone());
        }
        let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let folder =
            folder.context("find a place for the keys: neither --keys nor HOME says where")?;
        Ok(folder.join("ff2/serve-keys.json"))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and print it; it cannot be shown again
    Add {
        name: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Show all keys with their limits
    List,
    /// Remove a key; requests with it are refused from then on
    Remove { name: String },
}

/// What a key may take up; without a flag as much as the server has.
#[derive(Debug, Args)]
struct Limits {
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,
    /// Of prompts and answers together
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u32>,
    /// Requests at once
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
    /// Tokens in all, for good
    #[arg(long, value_name = "N")]
    quota_tokens: Option<u64>,
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let path = arguments.file.path()?;
    let mut keys = Keys::read(&path)?.unwrap_or_default();
    match arguments.command {
        Command::Add { name, limits } => {
            let Limits { requests_per_minute, tokens_per_minute, concurrent, quota_tokens } =
                limits;
            let limits =
                KeyLimits { requests_per_minute, tokens_per_minute, concurrent, quota_tokens };
            let text = keys.add(&name, limits)?;
            keys.write(&path)?;
            println!("{text}");
        }
        Command::List => {
            for key in &keys.keys {
                println!("{}\t{}", key.name, shown(&key.limits));
            }
        }
        Command::Remove { name } => {
            keys.remove(&name)?;
            keys.write(&path)?;
        }
    }
    Ok(())
}

fn shown(limits: &KeyLimits) -> String {
    let all = [
        limits.requests_per_minute.map(|n| format!("{n} requests/min")),
        limits.tokens_per_minute.map(|n| format!("{n} tokens/min")),
        limits.concurrent.map(|n| format!("{n} at once")),
        limits.quota_tokens.map(|n| format!("{n} tokens in all")),
    ];
    let told: Vec<String> = all.into_iter().flatten().collect();
    if told.is_empty() { "no limits".to_owned() } else { told.join(", ") }
}
