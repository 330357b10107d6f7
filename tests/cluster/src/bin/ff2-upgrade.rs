//! `ff2-upgrade FOLDER`: goes from the programs in a folder to those of this build (see `cargo xtask upgrade`).

use anyhow::{Context, Result};
use ff2_cluster_tests::upgrade::{Release, upgrade};

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("name the folder of the old programs")?;
    let measured = upgrade(&Release::In(folder.into()))?;
    println!(
        "{} records written and read back, the longest pause {:.1} s, {:.0} s in all",
        measured.records,
        measured.pause_max.as_secs_f64(),
        measured.took.as_secs_f64()
    );
    Ok(())
}
