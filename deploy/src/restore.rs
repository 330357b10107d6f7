//! `ff2ctl restore`: new metads for a local cluster that lost them all, from a backup.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use ff2_group::group_folder;
use ff2_proto::GroupId;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Folder, Name, Role, make_folder, write_file},
    process, up,
};

const GROUPS: [GroupId; 2] = [GroupId(0), GroupId(1)];

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What `ff2ctl backup create` wrote.
    file: PathBuf,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let folder = &around.folder;
    let file =
        fs::canonicalize(&args.file).with_context(|| format!("find {}", args.file.display()))?;
    let progress = around.output.progress();
    {
        let (cluster, _lock) = folder.load_locked()?;
        let metads: Vec<Name> = cluster.of(Role::Metad).map(|metad| metad.name()).collect();
        for name in &metads {
            check(folder, *name)?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
        for (done, name) in metads.iter().enumerate() {
            progress.now(format!("restoring {name} ({done} of {} done)", metads.len()));
            let made = restore(folder, &cluster, *name, &file, now).await;
            if made.is_err() {
                // Either all have the same state, or none has any.
                for made in &metads[..done] {
                    remove(folder, *made)?;
                }
            }
            made?;
        }
        progress.done(&format!("restored {} metads from {}", metads.len(), file.display()));
    }
    progress.finish();
    up::run(around, &up::Args::default()).await
}

fn check(folder: &Folder, name: Name) -> Result<()> {
    ensure!(
        process::running(folder, name).is_none(),
        "{name} runs: a backup is restored where all metads are lost; stop them and move their data \
         folders away if that is what you want"
    );
    for group in GROUPS {
        let path = group_folder(&folder.data(name), group);
        ensure!(
            !path.exists(),
            "{} holds a replica: move it away if it is lost, and that of all other metads",
            path.display()
        );
    }
    Ok(())
}

async fn restore(
    folder: &Folder,
    cluster: &ClusterFile,
    name: Name,
    file: &Path,
    at_s: u64,
) -> Result<()> {
    up::write_config(folder, cluster, name)?;
    make_folder(&folder.data(name))?;
    let at_s = at_s.to_string();
    let file = file.to_str().context("the file's name is not UTF-8")?;
    let arguments = ["format", "--restore", file, "--restored-at", &at_s];
    process::run_to_end(folder, name, &arguments).await?;
    write_file(&folder.formatted(name), b"", 0o600)
}

fn remove(folder: &Folder, name: Name) -> Result<()> {
    for group in GROUPS {
        let path = group_folder(&folder.data(name), group);
        fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
