//! One look for all progress bars of the demo.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over bytes. Where nobody looks (no terminal), it stays silent.
pub(super) fn bytes(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "  {bar:36.cyan/dim} {bytes:>10} of {total_bytes}  {binary_bytes_per_sec:>12}  {msg}",
    )
    .expect("the template is valid");
    ProgressBar::new(total).with_style(style)
}

/// A bar over the steps of a training.
pub(super) fn steps(total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("  {bar:36.cyan/dim} {pos:>6} of {len} steps  {msg}")
        .expect("the template is valid");
    ProgressBar::new(total).with_style(style)
}
