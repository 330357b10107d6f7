//! `ff2ctl backup create|verify|show`.

mod create;
mod survey;

use std::path::PathBuf;

use anyhow::Result;

use crate::cli::Surroundings;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write all metadata to a file, beside the load.
    ///
    /// It has the namespace (small files with their bytes) and the cluster's facts as they were when the backup began;
    /// the chunks of files are not in it: they lie on the storage servers. It takes neither the cluster key nor
    /// certificates along; keep those elsewhere. What users stored in small files is in it: the file is yours only.
    Create {
        /// Must not exist.
        file: PathBuf,
    },
    /// Whether a backup is whole, and could be restored.
    Verify { file: PathBuf },
    /// Of which cluster a backup is, from when, and how much it holds.
    Show { file: PathBuf },
}

pub(crate) async fn run(around: &Surroundings, command: &Command) -> Result<()> {
    match command {
        Command::Create { file } => create::run(around, file).await,
        Command::Verify { file } => survey::run(around, file, survey::Depth::AsRestored),
        Command::Show { file } => survey::run(around, file, survey::Depth::AsWritten),
    }
}
