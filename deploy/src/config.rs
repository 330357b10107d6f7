//! `ff2ctl config sample`: configuration files to begin with.

use anyhow::Result;
use serde_json::json;

use crate::cli::Surroundings;

const METAD: &str = include_str!("../samples/metad.toml");
const STORAGED: &str = include_str!("../samples/storaged.toml");
const MOUNT: &str = include_str!("../samples/mount.toml");
const SCHEDD: &str = include_str!("../samples/schedd.toml");
const AGENT: &str = include_str!("../samples/agent.toml");

#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print a commented configuration file.
    Sample { of: Daemon },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Daemon {
    Metad,
    Storaged,
    Mount,
    Schedd,
    Agent,
}

pub(crate) fn run(around: &Surroundings, command: Command) -> Result<()> {
    let Command::Sample { of } = command;
    let text = match of {
        Daemon::Metad => METAD,
        Daemon::Storaged => STORAGED,
        Daemon::Mount => MOUNT,
        Daemon::Schedd => SCHEDD,
        Daemon::Agent => AGENT,
    };
    around.output.print(&json!({ "toml": text }), || text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ff2_daemon::config::{
        AgentConfig, MetadConfig, MountConfig, PartitionConfig, SchedConfig, StoragedConfig, parse,
        to_toml,
    };

    use super::*;

    /// With the settings that are commented out: those have no blank after their `#`.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting.to_owned() + "\n",
            _ => line.to_owned() + "\n",
        };
        text.lines().map(line).collect()
    }

    /// Each key of the configuration is explained in the sample.
    fn names_all(text: &str, effective: &str) {
        for line in effective.lines() {
            if let Some((key, _)) = line.split_once(" = ") {
                assert!(text.contains(&format!("{key} = ")), "{key} is missing");
            }
        }
    }

    #[test]
    fn the_daemons_accept_the_samples_and_their_defaults_are_true() {
        let path = Path::new("sample.toml");
        let full = |text| uncommented(text);

        let metad: MetadConfig = parse(path, METAD).unwrap();
        let all: MetadConfig = parse(path, &full(METAD)).unwrap();
        assert_eq!(to_toml(&metad), to_toml(&all));
        names_all(METAD, &to_toml(&all));

        let schedd: SchedConfig = parse(path, SCHEDD).unwrap();
        let all: SchedConfig = parse(path, &full(SCHEDD)).unwrap();
        names_all(SCHEDD, &to_toml(&all));
        let debug = PartitionConfig { name: "debug".into(), ..PartitionConfig::default() };
        assert_eq!(all.partitions, [debug]);
        let all = SchedConfig { partitions: Vec::new(), ..all };
        assert_eq!(to_toml(&schedd), to_toml(&all));

        let agent: AgentConfig = parse(path, AGENT).unwrap();
        let all: AgentConfig = parse(path, &full(AGENT)).unwrap();
        names_all(AGENT, &to_toml(&all));
        let all =
            AgentConfig { fake_gpus: None, cpus: None, memory_mib: None, gpu_kind: None, ..all };
        assert_eq!(to_toml(&agent), to_toml(&all));

        let storaged: StoragedConfig = parse(path, STORAGED).unwrap();
        let all: StoragedConfig = parse(path, &full(STORAGED)).unwrap();
        assert_eq!(to_toml(&storaged), to_toml(&all));
        names_all(STORAGED, &to_toml(&all));

        let mount: MountConfig = parse(path, MOUNT).unwrap();
        let all: MountConfig = parse(path, &full(MOUNT)).unwrap();
        names_all(MOUNT, &to_toml(&all));
        let all = MountConfig { http_listen: None, subdir: None, ..all };
        assert_eq!(to_toml(&mount), to_toml(&all));
    }

    #[test]
    fn an_agent_that_only_watches_ports_needs_no_folder_of_jobs() {
        let lines = AGENT.lines().filter(|line| !line.starts_with("jobs_dir"));
        let without: String = lines.map(|line| line.to_owned() + "\n").collect();
        let watching = without.replace("#ports_only = false", "ports_only = true");
        let read = |text: &str| parse::<AgentConfig>(Path::new("agent.toml"), text);
        assert!(read(&watching).unwrap().ports_only);
        assert!(read(&without).unwrap_err().to_string().contains("jobs_dir"));
    }
}
