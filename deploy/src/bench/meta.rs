//! Small files: what untar, git and data loaders do.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{Figure, Mounted, Place, at_least_one, on_threads, tell};
use crate::bytes::ByteSize;

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Files in all.
    #[arg(long, default_value_t = 2_000, value_parser = at_least_one())]
    files: usize,
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    threads: usize,
    /// Bytes of each file.
    #[arg(long, default_value = "4KiB")]
    file_size: ByteSize,
}

pub(super) fn run(mounted: &Mounted, args: &Args) -> Result<Vec<Figure>> {
    on(&mounted.place()?, args)
}

/// All steps in this place.
pub(super) fn on(place: &Place, args: &Args) -> Result<Vec<Figure>> {
    let folder = |thread: usize| place.scratch.path.join(format!("t{thread}"));
    for thread in 0..args.threads {
        fs::create_dir(folder(thread)).context("create a thread's folder")?;
    }
    let per_thread = args.files.div_ceil(args.threads);
    let size = usize::try_from(args.file_size.0).context("--file-size fits in memory")?;
    let body = vec![0x5a; size];
    type Step<'a> = (&'static str, &'a str, &'a (dyn Fn(&Path) -> Result<()> + Sync));
    let create = |path: &Path| write(path, &body).map(drop);
    let create_synced = |path: &Path| {
        let file = write(&path.with_extension("synced"), &body)?;
        file.sync_all().context("sync")
    };
    let stat = |path: &Path| fs::metadata(path).map(drop).context("stat");
    let read = |path: &Path| read(path, size);
    let remove = |path: &Path| fs::remove_file(path).context("remove");
    let steps: [Step<'_>; 7] = [
        ("create", "create and write", &create),
        ("create-sync", "create, write and fsync", &create_synced),
        ("stat", "stat", &stat),
        ("stat-again", "stat again", &stat),
        ("read", "open, read and close", &read),
        ("read-again", "open, read and close again", &read),
        ("remove", "remove", &remove),
    ];
    steps
        .into_iter()
        .map(|(work, what, step)| {
            let name = format!("{what}, {} files of {}", args.files, args.file_size);
            tell(&name);
            let cost = place.measure(|| {
                on_threads(args.threads, |thread| {
                    (0..per_thread).try_for_each(|i| {
                        place.stop.check()?;
                        let path: PathBuf = folder(thread).join(format!("f{i}"));
                        step(&path).with_context(|| path.display().to_string())
                    })
                })
            })?;
            Ok(Figure::done(work, name, (per_thread * args.threads) as u64, &cost))
        })
        .collect()
}

fn write(path: &Path, body: &[u8]) -> Result<File> {
    let mut file = File::create(path).context("create")?;
    file.write_all(body).context("write")?;
    Ok(file)
}

fn read(path: &Path, size: usize) -> Result<()> {
    let mut found = Vec::with_capacity(size);
    File::open(path).context("open")?.read_to_end(&mut found).context("read")?;
    ensure!(found.len() == size, "{} bytes instead of {size}", found.len());
    Ok(())
}
