//! `ff2-serve report`: how a service does now, asked of its routers.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ff2_server::route::{folder::ServiceFolder, upstream::Upstream};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Folder of the service
    folder: PathBuf,
}

/// Prints what the router that leads says, as JSON.
///
/// # Errors
/// No router answers, or the folder is not this user's.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = ServiceFolder::open(&arguments.folder)?;
    let upstream = Upstream::open(&folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let said = runtime.context("start the runtime")?.block_on(async {
        let mut routers = folder.routers().entries()?;
        routers.sort_by(|one, other| one.place().cmp(&other.place()));
        let mut failure = None;
        for router in &routers {
            match upstream.report(router.inside).await {
                Ok(report) => return Ok(report),
                Err(error) => failure = Some(error.context(format!("ask {}", router.url))),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow::anyhow!("the service has no router now")))
    })?;
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}
