//! The text of `ibnetdiscover`, which `ibsim` reads too.
//!
//! A network port of a host is a channel adapter of its own there, described as "host mlx5_0". The text knows no
//! zones, planes and roles: zones and planes are taken from the wiring ([`Network::find_zones`]), hosts whose name
//! begins with "storage" are storage nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    Role,
    lingjun::BadLine,
    network::{End, Host, Link, Network, Switch},
};

/// The description of a host's network port.
pub fn nic_name(host: &str, nic: u32) -> String {
    format!("{host} mlx5_{}", nic - 1)
}

/// Speeds of four lanes by the names that InfiniBand has for them, Gbit/s.
const SPEEDS: [(&str, u32); 6] =
    [("4xQDR", 40), ("4xFDR", 56), ("4xEDR", 100), ("4xHDR", 200), ("4xNDR", 400), ("4xXDR", 800)];

/// Speeds that InfiniBand has no name for are written as numbers, as in `250G`.
fn speed_name(gbit_per_s: u32) -> String {
    let named = SPEEDS.iter().find(|(_, speed)| *speed == gbit_per_s);
    named.map_or_else(|| format!("{gbit_per_s}G"), |(name, _)| (*name).into())
}

fn speed(name: &str) -> Option<u32> {
    let named = SPEEDS.iter().find(|(known, _)| *known == name).map(|(_, speed)| *speed);
    named.or_else(|| name.strip_suffix('G')?.parse().ok())
}

/// The network as text. Both ends of each cable are written, as `ibnetdiscover` does.
pub fn write(network: &Network) -> String {
    let switches: BTreeSet<&str> = network.switches.iter().map(|s| s.name.as_str()).collect();
    let id = |end: &End| match switches.contains(end.node.as_str()) {
        true => (format!("S-{}", end.node), end.port, end.node.clone()),
        // Each network port is its own adapter with one port.
        false => (format!("H-{}-{}", end.node, end.port), 1, nic_name(&end.node, end.port)),
    };
    let mut lines: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
    for link in &network.links {
        for (near, far) in [(&link.a, &link.b), (&link.b, &link.a)] {
            let ((near_id, near_port, _), (far_id, far_port, far_name)) = (id(near), id(far));
            let speed = speed_name(link.gbit_per_s);
            let line =
                format!("[{near_port}]\t\"{far_id}\"[{far_port}]\t\t# \"{far_name}\" {speed}");
            lines.entry(near_id).or_default().push((near_port, line));
        }
    }
    let mut out = String::new();
    let mut part = |kind: &str, ports: u32, id: &str, name: &str| {
        let _ = writeln!(out, "{kind}\t{ports} \"{id}\"\t\t# \"{name}\"");
        let mut cables = lines.remove(id).unwrap_or_default();
        cables.sort_unstable();
        for (_, line) in cables {
            let _ = writeln!(out, "{line}");
        }
        out.push('\n');
    };
    for switch in &network.switches {
        part("Switch", switch.ports, &format!("S-{}", switch.name), &switch.name);
    }
    for host in &network.hosts {
        for nic in 1..=host.nics {
            let name = nic_name(&host.name, nic);
            part("Ca", 1, &format!("H-{}-{nic}", host.name), &name);
        }
    }
    out
}

/// The network that a text describes; `gpus` is what each compute node has, which the text does not tell.
pub fn read(text: &str, gpus: u32) -> Result<Network, BadLine> {
    let mut network = Network::default();
    // What each identifier stands for: a switch's name, or a host's and its network port.
    let mut names: BTreeMap<String, (String, Option<u32>)> = BTreeMap::new();
    let mut cables: Vec<(usize, String, u32, String, u32, Option<u32>)> = Vec::new();
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    let mut at: Option<String> = None;
    for (line, text) in (1..).zip(text.lines()) {
        let bad = |what: &str| BadLine { line, what: what.into() };
        let quoted: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        if text.starts_with('[') {
            let near = at.clone().ok_or_else(|| bad("a port before any switch or adapter"))?;
            let number = |text: &str| {
                text.split('[').nth(1)?.split(']').next()?.parse::<u32>().ok().filter(|n| *n > 0)
            };
            let far = quoted.first().ok_or_else(|| bad("expected the other end in quotes"))?;
            let rest = text.split('"').nth(2).unwrap_or_default();
            let ports = (number(text), number(rest));
            let (Some(port), Some(far_port)) = ports else {
                return Err(bad("expected [port] \"other end\"[port]"));
            };
            let gbit = text.split_whitespace().rev().find_map(speed);
            cables.push((line, near, port, (*far).into(), far_port, gbit));
            continue;
        }
        let Some(kind) = ["Switch", "Ca", "Hca"]
            .into_iter()
            .find(|kind| text.strip_prefix(kind).is_some_and(|rest| rest.starts_with([' ', '\t'])))
        else {
            continue;
        };
        let ports = text.split_whitespace().nth(1).and_then(|ports| ports.parse::<u32>().ok());
        let (Some(ports), Some(id)) = (ports, quoted.first()) else {
            return Err(bad("expected the number of ports and an identifier in quotes"));
        };
        let name = quoted.get(1).unwrap_or(id);
        let known = if kind == "Switch" {
            network.switches.push(Switch {
                name: (*name).into(),
                zone: String::new(),
                plane: 0,
                ports,
            });
            ((*name).to_owned(), None)
        } else {
            let host = name.split_whitespace().next().unwrap_or(id);
            let number = *hosts.entry(host.into()).or_insert(network.hosts.len());
            if number == network.hosts.len() {
                let role = match host.starts_with("storage") {
                    true => Role::Storage,
                    false => Role::Compute { gpus },
                };
                network.hosts.push(Host { name: host.into(), role, nics: 0 });
            }
            let first = network.hosts[number].nics + 1;
            network.hosts[number].nics += ports;
            (host.to_owned(), Some(first))
        };
        if names.insert((*id).into(), known).is_some() {
            return Err(bad("this identifier was described before"));
        }
        at = Some((*id).into());
    }
    let mut seen = BTreeSet::new();
    for (line, near, port, far, far_port, gbit) in cables {
        let end = |id: &str, port: u32| {
            let what = || format!("{id:?} is described nowhere");
            let (name, nic) = names.get(id).ok_or_else(|| BadLine { line, what: what() })?;
            Ok(End::new(name.as_str(), nic.map_or(port, |first| first + port - 1)))
        };
        let (near, far) = (end(&near, port)?, end(&far, far_port)?);
        // Written at both ends.
        let (low, high) = if near < far { (near, far) } else { (far, near) };
        if seen.insert((low.clone(), high.clone())) {
            let gbit_per_s = gbit.unwrap_or(200);
            network.links.push(Link { a: low, b: high, gbit_per_s });
        }
    }
    network.find_zones();
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tree, network::tests::small};

    fn sorted(mut network: Network) -> Network {
        for link in &mut network.links {
            if link.b < link.a {
                std::mem::swap(&mut link.a, &mut link.b);
            }
        }
        network.links.sort_by(|x, y| (&x.a, &x.b).cmp(&(&y.a, &y.b)));
        network
    }

    #[test]
    fn what_is_written_is_read() {
        for zones in [1, 2] {
            let network = small(zones);
            assert_eq!(sorted(read(&write(&network), 8).unwrap()), sorted(network));
        }
    }

    #[test]
    fn planes_are_told_from_zones() {
        let tree = Tree {
            zones: 2,
            planes: 2,
            leaves: 4,
            spines: 2,
            ports: 8,
            uplinks: 4,
            storage: 3,
            ..Tree::default()
        };
        let network = tree.build().unwrap();
        let read = read(&write(&network), 8).unwrap();
        assert_eq!(read.switches, network.switches);
        assert_eq!(sorted(read), sorted(network));
    }

    #[test]
    fn a_real_dump_is_read() {
        let text = "# Topology file\nvendid=0x2c9\nswitchguid=0x1(1)\n\
            Switch\t40 \"S-01\"\t\t# \"leaf1\" enhanced port 0 lid 4 lmc 0\n\
            [3]\t\"H-02\"[1](2) \t\t# \"node7 mlx5_0\" lid 5 4xNDR\n\n\
            Ca\t1 \"H-02\"\t\t# \"node7 mlx5_0\"\n[1](2) \t\"S-01\"[3]\t\t# lid 5 lmc 0 \"leaf1\" lid 4 4xNDR\n";
        let network = read(text, 8).unwrap();
        assert_eq!((network.switches.len(), network.hosts.len(), network.links.len()), (1, 1, 1));
        assert_eq!(network.links[0].gbit_per_s, 400);
        assert_eq!(network.links[0].a, End::new("leaf1", 3));
    }

    #[test]
    fn a_bad_line_is_named() {
        let told = |text| read(text, 8).unwrap_err().to_string();
        assert_eq!(told("[1] \"S-1\"[2]\n"), "line 1: a port before any switch or adapter");
        assert_eq!(
            told("Switch 4 \"S-1\"\n[1] \"H-9\"[1]\n"),
            "line 2: \"H-9\" is described nowhere"
        );
        assert!(told("Switch x\n").contains("expected the number of ports"));
    }
}
