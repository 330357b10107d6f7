//! `ff2ctl down`: agents and what they run first, then mounts, the storage servers and the metads, so that each can
//! still write and say goodbye. Only processes of this folder are signalled.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ff2_task::keeper::{Run, State};
use futures::future::try_join_all;
use serde_json::json;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Folder, Name, Role},
    mount,
    process::{self, Stopped},
};

/// Ranks have 5 s after SIGTERM; what hangs in the kernel is left to it.
const END_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove the cluster with all its data.
    #[arg(long)]
    purge: bool,
}

pub(crate) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let folder = &around.folder;
    if folder.read()?.is_none() {
        let value = json!({ "stopped": [], "purged": false });
        let dir = folder.path().display();
        return around.output.print(&value, || format!("there is no cluster in {dir}"));
    }
    let (file, lock) = folder.load_locked()?;
    let progress = around.output.progress();
    let mut stopped = Vec::new();
    for role in [Role::Agentd, Role::Schedd, Role::Fuse, Role::Storaged, Role::Metad] {
        progress.now(format!("stopping {}", role.as_str()));
        stopped.extend(stop_all(folder, &file, role).await?);
        if role == Role::Agentd {
            progress.now("ending what runs");
            end_runs(folder, &file)?;
        }
    }
    if args.purge {
        progress.now("removing its data");
        purge(folder, &file)?;
    }
    drop(lock);
    progress.finish();
    let names: Vec<String> = stopped.iter().map(|(name, _)| name.to_string()).collect();
    let killed: Vec<String> = stopped
        .iter()
        .filter(|(_, how)| *how == Stopped::Killed)
        .map(|(n, _)| n.to_string())
        .collect();
    let value = json!({ "stopped": names, "killed": killed, "purged": args.purge });
    around.output.print(&value, || {
        let mut text = match names.is_empty() {
            true => "nothing was running".to_owned(),
            false => format!("stopped {}", names.join(", ")),
        };
        if !killed.is_empty() {
            text += &format!("\nkilled, as they did not stop by themselves: {}", killed.join(", "));
        }
        if args.purge {
            text += &format!("\nremoved {}", folder.path().display());
        }
        text
    })
}

async fn stop_all(folder: &Folder, file: &ClusterFile, role: Role) -> Result<Vec<(Name, Stopped)>> {
    let stops = file.of(role).map(|process| async move {
        let name = process.name();
        let was_up = process::running(folder, name).is_some();
        if let Some(path) = &process.mount_point {
            // Programs that use it lose their files in any case: the cluster goes down.
            mount::take_down(folder, name, path, true).await?;
        }
        let how = process::stop(folder, name).await.with_context(|| format!("stop {name}"))?;
        let how = if was_up && how == Stopped::WasDown { Stopped::Cleanly } else { how };
        Ok::<_, anyhow::Error>((name, how))
    });
    let mut all = try_join_all(stops).await?;
    all.retain(|(_, how)| *how != Stopped::WasDown);
    Ok(all)
}

/// Jobs outlive their agents, but not the cluster: they are suspended as by a failure, and go on when it is up again.
fn end_runs(folder: &Folder, file: &ClusterFile) -> Result<()> {
    let mut runs = Vec::new();
    for agent in file.of(Role::Agentd) {
        let Ok(entries) = fs::read_dir(folder.data(agent.name()).join("runs")) else { continue };
        for entry in entries {
            let run = Run::at(entry.context("list the runs of an agent")?.path());
            // One that has ended takes no orders.
            if run.stop().is_ok() {
                runs.push(run);
            }
        }
    }
    let until = Instant::now() + END_PATIENCE;
    for run in runs {
        while matches!(run.state(), Ok(State::Running)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
    }
    Ok(())
}

/// Removes what `up` made, and the folder if nothing else lies in it.
fn purge(folder: &Folder, file: &ClusterFile) -> Result<()> {
    for mount in file.of(Role::Fuse) {
        mount::remove_made(mount)?;
    }
    let own = file.processes.iter().map(|process| folder.of(process.name()));
    for path in own.chain([folder.security(), folder.path().join("jobs")]) {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    // Last, so that an interrupted purge can be repeated.
    for name in ["cluster.json", "lock"] {
        let path = folder.path().join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    match fs::remove_dir(folder.path()) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        outcome => outcome.with_context(|| format!("remove {}", folder.path().display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bytes::ByteSize, cluster::Process};

    #[test]
    fn a_purge_leaves_what_it_did_not_make() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("cluster"));
        let mut file = ClusterFile::new("c".into(), 1, ByteSize(1));
        file.processes.push(Process { disks: 1, ..Process::new(Role::Storaged, 0) });
        let fill = || {
            drop(folder.lock().unwrap());
            folder.save(&file).unwrap();
            fs::create_dir_all(folder.disk(file.processes[0].name(), 0)).unwrap();
            fs::create_dir_all(folder.security()).unwrap();
        };
        fill();
        purge(&folder, &file).unwrap();
        assert!(!folder.path().exists());
        fill();
        fs::write(folder.path().join("notes"), "mine").unwrap();
        purge(&folder, &file).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
    }
}
