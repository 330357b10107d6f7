//! The network ports of a machine, as the kernel's `/sys` tells of them: Ethernet interfaces, and ports of
//! InfiniBand and RoCE cards, whose traffic no interface counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::limits;

/// Counters are since the driver was loaded or somebody set them back: only how much they grow tells anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// As in `eth0`, or `mlx5_0/1`.
    pub name: String,
    pub kind: Kind,
    pub up: bool,
    /// `None`: it does not tell, as bridges and loopbacks do not.
    pub bits_per_s: Option<u64>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// How often it went down.
    pub downs: u64,
    /// Frames or symbols that did not come through.
    pub errors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ethernet,
    InfiniBand,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::InfiniBand => "infiniband",
        }
    }
}

/// Interfaces that a card has, those named in `also`, and all InfiniBand ports, in the order of their names. `sys` is
/// where the kernel's tree is: `/sys`. What cannot be read is left out.
pub fn look(sys: &Path, also: &[String]) -> Vec<Link> {
    let has_card = |path: &PathBuf| {
        path.join("device").exists() || named(path).is_some_and(|name| also.contains(&name))
    };
    let interfaces = entries(&sys.join("class/net"));
    let ethernet = interfaces.filter(has_card).filter_map(|path| ethernet(&path));
    let cards = entries(&sys.join("class/infiniband"));
    let ports = cards.flat_map(|card| entries(&card.join("ports")).map(move |p| (card.clone(), p)));
    let infiniband = ports.filter_map(|(card, port)| infiniband(&card, &port));
    let mut links: Vec<Link> = ethernet.chain(infiniband).collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links.truncate(limits::LINKS_MAX);
    links
}

fn ethernet(path: &Path) -> Option<Link> {
    let counter = |name: &str| number(&path.join("statistics").join(name));
    Some(Link {
        name: named(path)?,
        kind: Kind::Ethernet,
        // "unknown" is what those say that have no wire.
        up: text(&path.join("operstate")).is_some_and(|state| state != "down"),
        // Fails, or is -1, while it is down or where there is no speed.
        bits_per_s: number(&path.join("speed")).map(|mbit_per_s| mbit_per_s * 1_000_000),
        received_bytes: counter("rx_bytes")?,
        sent_bytes: counter("tx_bytes")?,
        downs: number(&path.join("carrier_down_count")).unwrap_or(0),
        errors: counter("rx_errors").unwrap_or(0) + counter("tx_errors").unwrap_or(0),
    })
}

fn infiniband(card: &Path, port: &Path) -> Option<Link> {
    let counter = |name: &str| number(&port.join("counters").join(name));
    // Counted in words of four bytes.
    let bytes = |name: &str| counter(name).map(|words| words.saturating_mul(4));
    Some(Link {
        name: format!("{}/{}", named(card)?, named(port)?),
        kind: Kind::InfiniBand,
        // As in "4: ACTIVE" and "200 Gb/sec (4X HDR)".
        up: text(&port.join("state")).is_some_and(|state| state.ends_with("ACTIVE")),
        bits_per_s: text(&port.join("rate")).and_then(|rate| {
            let gbit_per_s: f64 = rate.split_whitespace().next()?.parse().ok()?;
            (gbit_per_s > 0.0).then_some((gbit_per_s * 1e9) as u64)
        }),
        received_bytes: bytes("port_rcv_data")?,
        sent_bytes: bytes("port_xmit_data")?,
        downs: counter("link_downed").unwrap_or(0),
        errors: counter("symbol_error").unwrap_or(0) + counter("port_rcv_errors").unwrap_or(0),
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

fn named(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, value: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    #[test]
    fn cards_and_what_is_named_are_seen_and_nothing_else() {
        let sys = tempfile::tempdir().unwrap();
        for interface in ["eth0", "bond0", "docker0"] {
            for (file, value) in [
                ("operstate", "up"),
                ("speed", "200000"),
                ("carrier_down_count", "3"),
                ("statistics/rx_bytes", "1000"),
                ("statistics/tx_bytes", "2000"),
                ("statistics/rx_errors", "1"),
                ("statistics/tx_errors", "4"),
            ] {
                write(sys.path(), &format!("class/net/{interface}/{file}"), value);
            }
        }
        write(sys.path(), "class/net/eth0/device/vendor", "0x15b3");
        write(sys.path(), "class/net/bond0/speed", "-1");
        for (file, value) in [
            ("state", "4: ACTIVE"),
            ("rate", "200 Gb/sec (4X HDR)"),
            ("counters/port_rcv_data", "25"),
            ("counters/port_xmit_data", "50"),
            ("counters/link_downed", "2"),
            ("counters/symbol_error", "7"),
        ] {
            write(sys.path(), &format!("class/infiniband/mlx5_0/ports/1/{file}"), value);
        }
        let links = look(sys.path(), &["bond0".into()]);
        let eth0 = Link {
            name: "eth0".into(),
            kind: Kind::Ethernet,
            up: true,
            bits_per_s: Some(200_000_000_000),
            received_bytes: 1_000,
            sent_bytes: 2_000,
            downs: 3,
            errors: 5,
        };
        let bond0 = Link { name: "bond0".into(), bits_per_s: None, ..eth0.clone() };
        let mlx5 = Link {
            name: "mlx5_0/1".into(),
            kind: Kind::InfiniBand,
            received_bytes: 100,
            sent_bytes: 200,
            downs: 2,
            errors: 7,
            ..eth0.clone()
        };
        assert_eq!(links, [bond0, eth0, mlx5]);
    }

    #[test]
    fn a_port_that_does_not_count_is_left_out() {
        let sys = tempfile::tempdir().unwrap();
        write(sys.path(), "class/infiniband/rxe0/ports/1/state", "4: ACTIVE");
        assert_eq!(look(sys.path(), &[]), []);
        assert_eq!(look(Path::new("/nowhere"), &[]), []);
    }

    #[test]
    fn this_machines_loopback_counts_what_is_sent_over_it() {
        let look = || look(Path::new("/sys"), &["lo".into()]);
        let lo = |links: Vec<Link>| links.into_iter().find(|link| link.name == "lo").unwrap();
        let before = lo(look());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        let after = lo(look());
        assert!(after.up && after.bits_per_s.is_none(), "{after:?}");
        assert!(after.sent_bytes >= before.sent_bytes + 10_000, "{before:?} {after:?}");
    }
}
