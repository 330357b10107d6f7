//! A model from its folder, with a progress bar and what came of it.

use std::{
    fs,
    io::IsTerminal,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
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
    let total = bytes_of_weights(folder)?;
    let bar = ProgressBar::with_draw_target(Some(total), target());
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.expect("a template that is right"));
    let (begun, done) = (Instant::now(), AtomicBool::new(false));
    let before = bytes_read();
    let loaded = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Files with modules for prediction are read twice, first for their names.
                bar.set_position(bytes_read().saturating_sub(before).min(total));
                thread::park_timeout(TICK);
            }
        });
        let loaded = checkpoint.load();
        done.store(true, Ordering::Relaxed);
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

fn bytes_of_weights(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}

/// By this process, so far, from whatever file: loading is all that it does now.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}
