//! Makes the disks of a new node.

use anyhow::{Context, Result, ensure};
use ff2_daemon::config::StoragedConfig;

use crate::engine::{Engine, FormatOptions};

/// Formats every disk of the configuration that is not formatted yet. Fails if there is none: then
/// all of them hold data.
pub fn format(config: &StoragedConfig) -> Result<()> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("create {}", config.data_dir.display()))?;
    let mut made = 0;
    for disk in &config.disks {
        if Engine::is_formatted(&disk.path) {
            continue;
        }
        let options = FormatOptions { size_bytes: disk.size_bytes };
        Engine::format(&disk.path, &options)
            .with_context(|| format!("format {}", disk.path.display()))?;
        made += 1;
    }
    ensure!(
        made > 0,
        "all {} disks are formatted already; to begin anew, remove their folders (their data is lost)",
        config.disks.len()
    );
    Ok(())
}
