//! The load of the cluster tests: `ff2-load FOLDER WRITERS` writes until its input ends, then prints what
//! was acknowledged.

use std::{
    env,
    io::{self, Read},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result};
use ff2_cluster_tests::load::{Acknowledged, writer};

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let folder = PathBuf::from(args.next().context("the first argument is a folder")?);
    let writers = args.next().context("the second argument is a number of writers")?;
    let writers: u64 = writers.to_string_lossy().parse().context("parse the number of writers")?;

    let stop = AtomicBool::new(false);
    let stopped = || stop.load(Ordering::Relaxed);
    let acknowledged: Result<Vec<Acknowledged>> = thread::scope(|scope| {
        let running: Vec<_> = (0..writers)
            .map(|number| {
                let folder = &folder;
                scope.spawn(move || (number, writer::write(folder, number, stopped)))
            })
            .collect();
        let told = io::stdin().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
        told.context("wait for the end of the input")?;
        running
            .into_iter()
            .map(|thread| {
                let (number, outcome) = thread.join().expect("a writer does not panic");
                outcome.with_context(|| format!("writer {number}"))
            })
            .collect()
    });
    serde_json::to_writer(io::stdout(), &acknowledged?).context("print the report")
}
