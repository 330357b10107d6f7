//! Networks in files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use ff2_topology::{Network, Tree, ibnetdiscover};

/// GPUs of each compute node of Fire-Flyer 2: ibnetdiscover does not tell.
const GPUS: u32 = 8;

/// Which network.
#[derive(Clone, Debug, Args)]
pub(crate) struct Source {
    /// JSON of `fabric generate --json`, or the text of ibnetdiscover; left out: Fire-Flyer 2.
    pub(crate) network: Option<PathBuf>,
}

/// What is broken.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Broken {
    /// A failed link, by the port of a switch at one end, as in `z0-leaf00[21]`; may be given again.
    #[arg(long, value_name = "SWITCH[PORT]")]
    pub(crate) fail_link: Vec<String>,
    /// A failed switch; may be given again.
    #[arg(long, value_name = "SWITCH")]
    pub(crate) fail_switch: Vec<String>,
}

impl Source {
    pub(crate) fn read(&self) -> Result<Network> {
        match &self.network {
            Some(path) => read(path),
            None => Ok(Tree::default().build()?),
        }
    }
}

impl Broken {
    pub(crate) fn links(&self, network: &Network) -> Result<BTreeSet<usize>> {
        let mut failed = BTreeSet::new();
        let mut fail = |what: &str, meets: &dyn Fn(&ff2_topology::End) -> bool| {
            let links = network.links.iter().enumerate();
            let found: Vec<usize> = links
                .filter(|(_, link)| meets(&link.a) || meets(&link.b))
                .map(|(at, _)| at)
                .collect();
            anyhow::ensure!(
                !found.is_empty(),
                "no link ends at {what}: the network has no such part"
            );
            failed.extend(found);
            Ok(())
        };
        for name in &self.fail_link {
            fail(name, &|end| end.to_string() == *name)?;
        }
        for name in &self.fail_switch {
            fail(name, &|end| end.node == *name)?;
        }
        Ok(failed)
    }
}

pub(crate) fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

pub(crate) fn read(path: &Path) -> Result<Network> {
    let text = text(path)?;
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text)
            .with_context(|| format!("read {} as JSON of a network", path.display())),
        false => ibnetdiscover::read(&text, GPUS)
            .with_context(|| format!("read {} as text of ibnetdiscover", path.display())),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// A table without frames.
pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head.to_vec());
    table.add_rows(rows);
    table.to_string()
}
