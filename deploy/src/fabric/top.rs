//! `ff2ctl fabric top`.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use anyhow::Result;
use ff2_proto::pb;
use serde_json::{Value, json};

use crate::{cli::Surroundings, output::table};

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Show so many ports.
    #[arg(long, value_name = "N", default_value_t = 40)]
    most: usize,
    /// Show it again and again, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(around: &Surroundings, args: &Args) -> Result<()> {
    let sched = around.access.connect_sched()?;
    loop {
        let links = sched.list_links(pb::ListLinksRequest {}).await?.links;
        if args.watch && io::stdout().is_terminal() {
            // Clears the screen.
            io::stdout().write_all(b"\x1b[2J\x1b[H")?;
        }
        let told: Vec<Value> = links.iter().take(args.most).map(value).collect();
        let value = json!({ "links": told, "in_all": links.len() });
        around.output.print(&value, || shown(&links, args.most))?;
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn value(link: &pb::ComputeLink) -> Value {
    json!({
        "node": link.node, "zone": link.zone, "leaf": link.leaf, "port": link.name, "kind": link.kind, "up": link.up,
        "bits_per_s": (link.bits_per_s > 0).then_some(link.bits_per_s),
        "received_bytes_per_s": link.received_per_s, "sent_bytes_per_s": link.sent_per_s,
        "use": (link.bits_per_s > 0).then(|| f64::from(link.use_permille) / 1e3),
        "hot": link.hot, "flapping": link.flapping, "downs_10min": link.downs, "errors_10min": link.errors,
    })
}

fn shown(links: &[pb::ComputeLink], most: usize) -> String {
    if links.is_empty() {
        return "no agent has told of a network port yet (interfaces without a card: `links` in agent.toml)".into();
    }
    let rows = links.iter().take(most).map(|link| {
        vec![
            link.node.clone(),
            format!("{}/{}", link.zone, link.leaf),
            link.name.clone(),
            speed(link.bits_per_s),
            rate(link.received_per_s),
            rate(link.sent_per_s),
            match link.bits_per_s {
                0 => "-".into(),
                _ => format!("{} %", link.use_permille / 10),
            },
            link.downs.to_string(),
            link.errors.to_string(),
            state(link).into(),
        ]
    });
    let head = [
        "NODE",
        "ZONE/LEAF",
        "PORT",
        "SPEED",
        "RECEIVED",
        "SENT",
        "USE",
        "DOWNS",
        "ERRORS",
        "STATE",
    ];
    let mut text = table(&head, rows);
    text += "\nDowns and errors are those of the last ten minutes.\n";
    if links.len() > most {
        text += &format!("{} more ports: --most\n", links.len() - most);
    }
    text
}

fn state(link: &pb::ComputeLink) -> &'static str {
    match link {
        link if link.flapping => "flapping",
        link if !link.up => "down",
        link if link.hot => "hot",
        _ => "up",
    }
}

/// Of links, as people name it: in bits, by thousands.
fn speed(bits_per_s: u64) -> String {
    match bits_per_s {
        0 => "-".into(),
        1..1_000_000_000 => format!("{} Mb/s", bits_per_s / 1_000_000),
        _ => format!("{} Gb/s", bits_per_s / 1_000_000_000),
    }
}

fn rate(bytes_per_s: u64) -> String {
    format!("{:.1} MiB/s", bytes_per_s as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_port_is_named() {
        let port = pb::ComputeLink {
            node: "gpu1".into(),
            zone: "a".into(),
            leaf: "leaf1".into(),
            name: "mlx5_0/1".into(),
            up: true,
            bits_per_s: 200_000_000_000,
            sent_per_s: 23 << 30,
            use_permille: 987,
            hot: true,
            ..Default::default()
        };
        let lo = pb::ComputeLink { name: "lo".into(), bits_per_s: 0, hot: false, ..port.clone() };
        let broken = pb::ComputeLink { flapping: true, downs: 5, ..port.clone() };
        let text = shown(&[broken, port, lo], 2);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("flapping") && lines[1].contains(" 5 "), "{text}");
        assert!(lines[2].ends_with("hot") && lines[2].contains("98 %"), "{text}");
        assert!(lines[2].contains("200 Gb/s") && text.contains("1 more ports"), "{text}");
    }
}
