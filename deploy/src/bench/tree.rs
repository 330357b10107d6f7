//! A tree of small files, made and removed by the programs that people use for it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{Figure, Mounted, Place, at_least_one, tell};

/// Files of one folder of the tree.
const PER_FOLDER: usize = 50;
const FILE_BYTES: usize = 4 << 10;

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Files of the tree, 4 KiB each.
    #[arg(long, default_value_t = 3_000, value_parser = at_least_one())]
    entries: usize,
}

pub(super) fn run(mounted: &Mounted, args: &Args) -> Result<Vec<Figure>> {
    on(&mounted.place()?, args)
}

/// Both steps in this place.
pub(super) fn on(place: &Place, args: &Args) -> Result<Vec<Figure>> {
    let beside = tempfile::tempdir().context("make a folder for the archive")?;
    let archive = beside.path().join("tree.tar");
    pack(beside.path(), &archive, args.entries)?;
    let name = |what: &str| format!("{what} {} files of 4 KiB", args.entries);
    let (tree, count) = (place.scratch.path.join("tree"), args.entries as u64);
    tell(&name("unpack"));
    fs::create_dir(&tree).context("create the tree's folder")?;
    let unpack = || say(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree));
    let unpacked = place.measure(unpack)?;
    tell(&name("remove"));
    let removed = place.measure(|| say(Command::new("rm").arg("-rf").arg(&tree)))?;
    let times = [("unpack", "tar -x of", unpacked), ("remove-tree", "rm -rf of", removed)];
    Ok(times
        .into_iter()
        .map(|(work, what, cost)| Figure::done(work, name(what), count, &cost))
        .collect())
}

fn pack(folder: &Path, archive: &Path, entries: usize) -> Result<()> {
    let source = folder.join("source");
    let body = vec![0x5a; FILE_BYTES];
    for entry in 0..entries {
        let part = source.join(format!("folder-{}", entry / PER_FOLDER));
        if entry.is_multiple_of(PER_FOLDER) {
            fs::create_dir_all(&part).context("create a folder")?;
        }
        fs::write(part.join(format!("file-{entry}")), &body).context("write a file")?;
    }
    say(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(&source).arg("."))
}

fn say(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", said.trim());
    Ok(())
}
