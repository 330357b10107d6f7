//! A model from its folder, with a progress bar and what came of it.

use std::{
    io::IsTerminal,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ff2_model::{Checkpoint, Model};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Reads config and weights. Tells time and speed on standard error.
///
/// # Errors
/// What is wrong with the folder: a missing or broken file, by name.
pub fn model(folder: &Path) -> Result<Model> {
    let checkpoint = Checkpoint::open(folder)
        .with_context(|| format!("open the model in {}", folder.display()))?;
    let total = checkpoint
        .bytes()
        .with_context(|| format!("find the weights of the model in {}", folder.display()))?;
    let bar = ProgressBar::with_draw_target(Some(total), target());
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.expect("a template that is right"));
    let (begun, done) = (Instant::now(), AtomicBool::new(false));
    let bytes = AtomicU64::new(0);
    let loaded = thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bar.set_position(bytes.load(Ordering::Relaxed));
                thread::park_timeout(TICK);
            }
        });
        let loaded = checkpoint.load_counted(&bytes);
        done.store(true, Ordering::Relaxed);
        ticker.thread().unpark();
        loaded
    });
    bar.finish_and_clear();
    let loaded = loaded.with_context(|| format!("load the model in {}", folder.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let rate = total as f64 / f64::from(1 << 30) / seconds;
    eprintln!("loaded {} of weights in {seconds:.2} s, {rate:.2} GiB/s", HumanBytes(total));
    Ok(loaded)
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}
