//! Puts per second of one group: `cargo run --release -p ff2-group --example raft_bench [folder]`.

use std::path::PathBuf;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("ff2-raft-bench-").tempdir_in(folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = ff2_group::probe::report(folder.path(), |subject, figures| {
        println!("{subject:?}: {figures}")
    });
    runtime.block_on(report)?;
    Ok(())
}
