//! One very large directory: made, listed, looked into and removed, and how long the longest operation was.

use std::{
    fs::{self, File},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{Figure, Mounted, at_least_one, on_threads, tell};

/// Names that are looked up: not all, so that it ends.
const LOOKUPS: usize = 20_000;

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Files of the directory, all of them empty.
    #[arg(long, default_value_t = 100_000, value_parser = at_least_one())]
    entries: usize,
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    threads: usize,
}

/// The longest of the operations of a step.
#[derive(Debug, Default)]
struct Longest(AtomicU64);

impl Longest {
    fn time<R>(&self, operation: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let outcome = operation();
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(micros, Ordering::Relaxed);
        outcome
    }

    fn take(&self) -> f64 {
        self.0.swap(0, Ordering::Relaxed) as f64 / 1e3
    }
}

pub(super) fn run(mounted: &Mounted, args: &Args) -> Result<Vec<Figure>> {
    let place = mounted.place()?;
    let (longest, entries) = (Longest::default(), args.entries);
    let directory = place.scratch.path.join("large");
    fs::create_dir(&directory).context("create the directory")?;
    let name = |number: usize| directory.join(format!("file-{number:08}"));
    let mut figures = Vec::new();
    let mut step = |work, what: &str, count: usize, run: &dyn Fn() -> Result<()>| {
        let title = format!("{what}, {count} files in one directory of {entries}");
        tell(&title);
        let cost = place.measure(run)?;
        figures.push(Figure::done(work, title, count as u64, &cost));
        let title = format!("the longest of these: {what}");
        figures.push(Figure::new(work, title, longest.take(), "ms"));
        anyhow::Ok(())
    };
    let each = |count: usize, operation: &(dyn Fn(&Path) -> Result<()> + Sync)| {
        let stride = entries / count;
        on_threads(args.threads, |thread| {
            for number in (thread..count).step_by(args.threads) {
                place.stop.check()?;
                let path = name(number * stride);
                longest.time(|| operation(&path)).with_context(|| path.display().to_string())?;
            }
            Ok(())
        })
    };
    let create = |path: &Path| File::create(path).map(drop).context("create");
    step("directory-create", "create", entries, &|| each(entries, &create))?;
    let list = || {
        let mut list = longest.time(|| fs::read_dir(&directory)).context("open the directory")?;
        let mut found = 0;
        while let Some(entry) = longest.time(|| list.next()) {
            entry.context("list")?;
            found += 1;
        }
        ensure!(found == entries, "{found} entries are listed instead of {entries}");
        Ok(())
    };
    step("directory-list", "list", entries, &list)?;
    let lookups = entries.min(LOOKUPS);
    let stat = |path: &Path| fs::metadata(path).map(drop).context("stat");
    step("directory-stat", "stat", lookups, &|| each(lookups, &stat))?;
    let remove = |path: &Path| fs::remove_file(path).context("remove");
    step("directory-remove", "remove", entries, &|| each(entries, &remove))?;
    Ok(figures)
}
