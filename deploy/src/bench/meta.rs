//! Small files on the mount: what untar, git and data loaders do.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{Figure, Scratch, cpu::Meter, on_threads};
use crate::own::Own;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Files in all.
    #[arg(long, default_value_t = 2_000)]
    files: usize,
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Bytes of each file.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
}

pub(super) fn run(own: &Own, args: &Args) -> Result<Vec<Figure>> {
    let scratch = Scratch::on_mount(own)?;
    let per_thread = args.files / args.threads.max(1);
    let folder = |thread: usize| scratch.path.join(format!("t{thread}"));
    for thread in 0..args.threads {
        fs::create_dir(folder(thread)).context("create a thread's folder")?;
    }
    let each = |step: &(dyn Fn(PathBuf) -> Result<()> + Sync)| {
        on_threads(args.threads, |thread| {
            (0..per_thread).try_for_each(|i| {
                let path = folder(thread).join(format!("f{i}"));
                step(path.clone()).with_context(|| path.display().to_string())
            })
        })
    };
    let body = vec![0x5a; args.bytes];
    let create = |path: PathBuf| -> Result<()> { Ok(File::create(path)?.write_all(&body)?) };
    let sync = |path: PathBuf| -> Result<()> {
        let mut file = File::create(path.with_extension("s"))?;
        file.write_all(&body)?;
        Ok(file.sync_all()?)
    };
    let stat = |path: PathBuf| -> Result<()> { Ok(fs::metadata(path).map(drop)?) };
    let read = |path: PathBuf| -> Result<()> {
        let mut found = Vec::with_capacity(args.bytes);
        File::open(path)?.read_to_end(&mut found)?;
        anyhow::ensure!(found.len() == args.bytes, "short: {} bytes", found.len());
        Ok(())
    };
    let remove = |path: PathBuf| -> Result<()> { Ok(fs::remove_file(path)?) };
    type Step<'a> = (&'a str, &'a (dyn Fn(PathBuf) -> Result<()> + Sync));
    let steps: [Step<'_>; 5] = [
        ("create and write", &create),
        ("create, write and fsync", &sync),
        ("stat", &stat),
        ("open and read", &read),
        ("remove", &remove),
    ];
    let mut figures = Vec::new();
    let count = (per_thread * args.threads).max(1) as f64;
    for (name, step) in steps {
        let meter = Meter::start(own)?;
        each(step)?;
        let cost = meter.stop()?;
        figures.push(Figure::new(
            format!("{name}, {} bytes", args.bytes),
            count / cost.wall_s,
            "1/s",
        ));
        figures.push(Figure::new(
            format!("{name}, all processes"),
            cost.cpu_s * 1e6 / count,
            "CPU us each",
        ));
    }
    Ok(figures)
}
