//! `ff2ctl restart ROLE/N`.

use anyhow::Result;
use serde_json::json;

use crate::{cli::Surroundings, cluster::Name, mount, process, up};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// For example metad/1
    #[arg(value_name = "ROLE/N")]
    process: Name,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let (folder, name) = (&around.folder, args.process);
    let (file, _lock) = folder.load_locked()?;
    let known = file.find(name)?;
    let progress = around.output.progress();
    progress.now(format!("stopping {name}"));
    if let Some(path) = &known.mount_point {
        mount::take_down(folder, name, path, false).await?;
    }
    let how = process::stop(folder, name).await?;
    progress.now(format!("starting {name}"));
    up::start_and_wait(folder, &file, name).await?;
    progress.finish();
    let value = json!({ "restarted": name.to_string(), "stop": format!("{how:?}") });
    around.output.print(&value, || format!("restarted {name}"))
}
