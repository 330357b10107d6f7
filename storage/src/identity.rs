//! Who this node is, kept in its data folder: the id that the cluster gave it at its first join.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::replace::replace;

/// `node.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeIdentity {
    /// 0: not joined yet.
    pub node_id: u32,
    pub cluster_id: String,
}

impl NodeIdentity {
    /// What the folder says; a folder that says nothing belongs to a node that never joined.
    pub fn load(data_dir: &Path) -> Result<Self> {
        let path = file(data_dir);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Replaces what the folder says, durably.
    pub fn save(&self, data_dir: &Path) -> Result<()> {
        let path = file(data_dir);
        let text = serde_json::to_vec_pretty(self).context("print the node's identity")?;
        replace(&path, &text).with_context(|| format!("write {}", path.display()))
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("node.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_survives_and_a_broken_one_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), NodeIdentity::default());
        let identity = NodeIdentity { node_id: 103, cluster_id: "c".into() };
        identity.save(dir.path()).unwrap();
        assert_eq!(NodeIdentity::load(dir.path()).unwrap(), identity);
        fs::write(file(dir.path()), b"{").unwrap();
        assert!(NodeIdentity::load(dir.path()).is_err());
    }
}
