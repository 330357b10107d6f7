//! The node id that the cluster gave at the first join, kept in the data folder.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

const NAME: &str = "node.json";

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) node_id: u32,
    pub(crate) cluster_id: String,
}

impl Identity {
    /// What an earlier run wrote; the default before the first join.
    pub(crate) fn load(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(NAME);
        match fs::read_to_string(&path) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Durable when it returns.
    pub(crate) fn save(&self, data_dir: &Path) -> Result<()> {
        let beside: PathBuf = data_dir.join("node.json.new");
        let text = serde_json::to_string(self).context("print the node's identity")?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, data_dir.join(NAME))?;
            File::open(data_dir)?.sync_all()
        };
        write().with_context(|| format!("write {NAME} in {}", data_dir.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), Identity::default());
        let identity = Identity { node_id: 7, cluster_id: "c".into() };
        identity.save(folder.path()).unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), identity);
        fs::write(folder.path().join(NAME), "{").unwrap();
        assert!(Identity::load(folder.path()).is_err(), "never taken for a new node");
    }
}
