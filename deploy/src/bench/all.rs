//! `ff2ctl bench all`: the file system's figures beside those of the disk that carries it. The disk is
//! measured right before, with nothing else running; small files are held against the same steps in a
//! folder of the disk's own file system.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use serde_json::json;

use super::{
    Figure, Mounted, Place, checkpoint, disk, fs, host::Host, idle, meta, raft, rounded, tree,
};
use crate::{
    output::{Output, table},
    stop::Stop,
};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    fs: fs::Args,
    #[command(flatten)]
    meta: meta::Args,
    #[command(flatten)]
    checkpoint: checkpoint::Args,
    #[command(flatten)]
    tree: tree::Args,
    #[command(flatten)]
    idle: idle::Args,
    /// Print a table for docs/BENCHMARKS.md.
    #[arg(long)]
    markdown: bool,
}

/// A figure of the file system, and the disk's of the same work.
#[derive(Debug, Serialize)]
struct Row {
    ff2: Figure,
    disk: Option<Figure>,
    ratio: Option<f64>,
}

const HEAD: [&str; 6] = ["Work", "ff2", "Disk", "Ratio", "CPU of all processes", "Cores busy"];

pub(super) fn run(dir: &Path, args: &Args, output: Output, stop: &Stop) -> Result<()> {
    // First of all, since without a mount all else is in vain.
    let mounted = Mounted::find(dir, stop)?;
    let host = Host::look(dir)?;
    let disk_args =
        disk::Args { size: args.fs.size, seconds: args.fs.seconds, depth: args.fs.depth };
    let mut disk = disk::run(dir, &disk_args, stop)?;
    let beside = Place::beside(dir, stop)?;
    disk.extend(meta::on(&beside, &args.meta)?);
    disk.extend(checkpoint::on(&beside, &args.checkpoint)?);
    disk.extend(tree::on(&beside, &args.tree)?);
    drop(beside);
    let mut ff2 = idle::run(dir, &args.idle, stop)?;
    ff2.extend(fs::run(&mounted, &args.fs)?);
    ff2.extend(checkpoint::run(&mounted, &args.checkpoint)?);
    ff2.extend(meta::run(&mounted, &args.meta)?);
    ff2.extend(tree::run(&mounted, &args.tree)?);
    ff2.extend(raft::on(dir, stop)?);
    let rows: Vec<Row> = ff2.into_iter().map(|figure| Row::new(figure, &disk)).collect();
    let about = host.text();
    let value = json!({ "host": host, "about": about, "rows": rows });
    output.print(&value, || {
        if args.markdown {
            return markdown(&about, &rows);
        }
        let lines = rows.iter().map(|row| row.cells().to_vec());
        format!("{about}\n\n{}", table(&HEAD, lines))
    })
}

impl Row {
    fn new(ff2: Figure, disk: &[Figure]) -> Self {
        let like = disk.iter().find(|figure| figure.work == ff2.work);
        let disk = like.map(|like| Figure::new(like.work, &like.name, like.value, like.unit));
        let ratio = like.map(|like| ff2.value / like.value);
        Self { ff2, disk, ratio }
    }

    fn cells(&self) -> [String; 6] {
        let disk = self.disk.as_ref().map(Figure::value_text).unwrap_or_default();
        let ratio = self.ratio.map(rounded).unwrap_or_default();
        let ff2 = &self.ff2;
        [ff2.name.clone(), ff2.value_text(), disk, ratio, ff2.cpu_text(), ff2.cores_text()]
    }
}

fn markdown(about: &str, rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("{about}\n\n");
    text += &line(&HEAD.map(str::to_owned));
    text += "|---|--:|--:|--:|---|--:|\n";
    text.extend(rows.iter().map(|row| line(&row.cells())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_same_work_are_compared() {
        let disk = [Figure::new("seq-read", "disk", 200.0, "MiB/s")];
        let rows = [
            Row::new(Figure::new("seq-read", "read", 50.0, "MiB/s"), &disk),
            Row::new(Figure::new("raft", "puts", 7.0, "1/s"), &disk),
        ];
        let text = markdown("About.", &rows);
        assert!(text.starts_with("About.\n\n| Work | ff2 |"), "{text}");
        assert!(text.contains("| read | 50.0 MiB/s | 200 MiB/s | 0.25 |"), "{text}");
        assert!(text.contains("| puts | 7.00 1/s |  |  |"), "{text}");
    }
}
