//! A network namespace whose links a test can cut.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::suite::run;

/// A network with nothing but loopback, until it is dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Network {
    pub fn make() -> Result<Self> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("ff2-test-{}-{number}", std::process::id()) };
        run(Command::new("ip").args(["netns", "add", &network.name]))?;
        run(network.inside("ip").args(["link", "set", "lo", "up"]))?;
        Ok(network)
    }

    /// For `nsenter --net=`.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Whatever is sent to these ports is lost, also on connections that are open; what is sent from
    /// them arrives.
    pub fn cut(&self, ports: &[u64]) -> Result<()> {
        let ports: Vec<String> = ports.iter().map(u64::to_string).collect();
        let rule = format!("tcp dport {{ {} }} drop;", ports.join(", "));
        self.filter(&format!(
            "table inet cut {{ chain arrives {{ type filter hook input priority 0; {rule} }}; }}"
        ))
    }

    /// What the processes of each of these users send to the ports beside it is lost.
    pub fn cut_from(&self, links: &[(u32, Vec<u64>)]) -> Result<()> {
        let rule = |(uid, ports): &(u32, Vec<u64>)| {
            let ports: Vec<String> = ports.iter().map(u64::to_string).collect();
            format!("meta skuid {uid} tcp dport {{ {} }} drop;", ports.join(", "))
        };
        let rules: String = links.iter().map(rule).collect();
        self.filter(&format!(
            "table inet cut {{ chain leaves {{ type filter hook output priority 0; {rules} }}; }}"
        ))
    }

    /// Nothing is lost any more.
    pub fn heal(&self) -> Result<()> {
        self.filter("delete table inet cut")
    }

    fn filter(&self, rules: &str) -> Result<()> {
        run(self.inside("nft").arg(rules).stdin(Stdio::null())).context("set the filter").map(drop)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(problem) = run(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("{problem:#}");
        }
    }
}
