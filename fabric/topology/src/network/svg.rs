//! The network as a picture, and as DOT for graphviz.

use std::{collections::BTreeMap, fmt::Write as _};

use super::Network;
use crate::Role;

const WIDTH: f64 = 1600.0;
const LAYER_HEIGHT: f64 = 170.0;
const TOP: f64 = 110.0;
/// Hosts of a leaf stand below it in a column of squares.
const SQUARE: f64 = 7.0;

const USE_LEGEND: &str = r##"<g transform="translate(400 68)" font-size="13" fill="#46536b">
<text>use of links: 0</text><rect x="106" y="-9" width="24" height="10" fill="hsl(210 80% 45%)"/>
<rect x="130" y="-9" width="24" height="10" fill="hsl(140 80% 45%)"/>
<rect x="154" y="-9" width="24" height="10" fill="hsl(70 80% 45%)"/>
<rect x="178" y="-9" width="24" height="10" fill="hsl(0 80% 45%)"/><text x="208">full</text></g>
"##;

/// A picture of layers from the hosts (below) to the highest switches; `use_of` gives each link's use by its place in
/// [`Network::links`], 0 to 1, and colours it. Bundles of cables are one line, as wide as they are many.
pub fn picture(network: &Network, use_of: Option<&[f64]>) -> String {
    let layers = network.layers();
    let highest = layers.iter().max().copied().unwrap_or(1);
    let numbers = network.switch_numbers();
    let places = places(network, &layers, highest);
    let hosts = network.hosts.len();
    let mut out = String::new();
    let below = columns(network).values().map(Vec::len).max().unwrap_or(0);
    let height =
        TOP + LAYER_HEIGHT * f64::from(highest) - 80.0 + below as f64 * (SQUARE + 2.0) + 20.0;
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}"
 font-family="Inter, Helvetica, sans-serif">
<rect width="100%" height="100%" fill="#fbfcfe"/>
<text x="40" y="46" font-size="24" font-weight="600" fill="#18243a">{} switches, {hosts} hosts, {} links</text>
<g transform="translate(40 68)" font-size="13" fill="#46536b">
<rect width="10" height="10" y="-9" fill="#3d7be0"/><text x="16">compute</text>
<rect width="10" height="10" x="96" y="-9" fill="#e08a2b"/><text x="112">storage</text>
<rect width="10" height="10" x="186" y="-9" fill="#8a94a6"/><text x="202">management</text></g>"##,
        network.switches.len(),
        network.links.len(),
    );
    // Bundles between switches: how many cables, and the largest use.
    let mut bundles: BTreeMap<(usize, usize), (u32, f64)> = BTreeMap::new();
    for (at, link) in network.links.iter().enumerate() {
        let ends = (numbers.get(link.a.node.as_str()), numbers.get(link.b.node.as_str()));
        if let (Some(&a), Some(&b)) = ends {
            let bundle = bundles.entry((a.min(b), a.max(b))).or_default();
            bundle.0 += 1;
            bundle.1 = bundle.1.max(use_of.and_then(|of| of.get(at)).copied().unwrap_or(0.0));
        }
    }
    let opacity = (40.0 / (bundles.len().max(1) as f64).sqrt()).clamp(0.16, 0.8);
    for ((a, b), (cables, used)) in bundles {
        let ((x1, y1), (x2, y2)) = (places[a], places[b]);
        let width = 0.6 + 0.25 * f64::from(cables - 1);
        let colour = match use_of {
            Some(_) => format!("hsl({:.0} 80% 45%)", 210.0 - 210.0 * used.clamp(0.0, 1.0)),
            None => "#5b7fb5".into(),
        };
        let _ = writeln!(
            out,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}"
 stroke-width="{width:.1}" stroke-opacity="{opacity:.2}"/>"#
        );
    }
    if use_of.is_some() {
        out.push_str(USE_LEGEND);
    }
    let mut named: BTreeMap<(u32, &str), (f64, f64)> = BTreeMap::new();
    for (at, switch) in network.switches.iter().enumerate() {
        named.entry((layers[at], &switch.zone)).or_insert(places[at]);
    }
    for ((layer, zone), (x, y)) in named {
        let what =
            ["not wired", "leaves", "spines", "border", "between zones"][layer.min(4) as usize];
        let (x, y, zone) = (x - 7.0, y - 12.0, escape(zone));
        let _ = writeln!(
            out,
            r##"<text x="{x:.1}" y="{y:.1}" font-size="12" fill="#46536b">{zone} {what}</text>"##
        );
    }
    for (at, switch) in network.switches.iter().enumerate() {
        let (x, y) = places[at];
        let fill =
            ["#8a94a6", "#27548f", "#1f8a70", "#7b4fa3", "#b03a5b"][layers[at].min(4) as usize];
        let _ = writeln!(
            out,
            r##"<rect x="{:.1}" y="{:.1}" width="14" height="10" rx="2" fill="{fill}"
 stroke="#fff"><title>{}</title></rect>"##,
            x - 7.0,
            y - 5.0,
            escape(&switch.name)
        );
    }
    for (leaf, column) in columns(network) {
        let (x, y) = places[leaf];
        for (row, (name, role)) in column.into_iter().enumerate() {
            let fill = match role {
                Role::Compute { .. } => "#3d7be0",
                Role::Storage => "#e08a2b",
                Role::Management => "#8a94a6",
            };
            let _ = writeln!(
                out,
                r#"<rect x="{:.1}" y="{:.1}" width="{SQUARE}" height="{SQUARE}" rx="1"
 fill="{fill}"><title>{}</title></rect>"#,
                x - SQUARE / 2.0,
                y + 12.0 + row as f64 * (SQUARE + 2.0),
                escape(name)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Nodes and cables for graphviz.
pub fn dot(network: &Network) -> String {
    let mut out = String::from("graph fabric {\n  rankdir=BT;\n");
    for host in &network.hosts {
        let _ = writeln!(out, "  {:?} [shape=box];", host.name);
    }
    for switch in &network.switches {
        let _ = writeln!(out, "  {:?} [shape=ellipse];", switch.name);
    }
    for link in &network.links {
        let (a, b) = (&link.a, &link.b);
        let _ = writeln!(
            out,
            "  {:?} -- {:?} [taillabel={}, headlabel={}, label={:?}];",
            a.node,
            b.node,
            a.port,
            b.port,
            format!("{}G", link.gbit_per_s)
        );
    }
    out.push_str("}\n");
    out
}

/// The middle of each switch: layers above each other, zones beside each other.
fn places(network: &Network, layers: &[u32], highest: u32) -> Vec<(f64, f64)> {
    let mut zones: Vec<&str> = network.switches.iter().map(|s| s.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.retain(|zone| !zone.is_empty());
    let share = (WIDTH - 80.0) / zones.len().max(1) as f64;
    let mut counts: BTreeMap<(u32, &str), (usize, usize)> = BTreeMap::new();
    for (switch, layer) in network.switches.iter().zip(layers) {
        counts.entry((*layer, &switch.zone)).or_default().0 += 1;
    }
    let mut places = Vec::new();
    for (switch, layer) in network.switches.iter().zip(layers) {
        let row = counts.entry((*layer, &switch.zone)).or_default();
        let (left, width) = match zones.iter().position(|zone| *zone == switch.zone) {
            Some(zone) => (40.0 + share * zone as f64 + 10.0, share - 20.0),
            None => (40.0, WIDTH - 80.0),
        };
        let x = left + width * (row.1 as f64 + 0.5) / row.0 as f64;
        row.1 += 1;
        places.push((x, TOP + LAYER_HEIGHT * f64::from(highest - layer) + 10.0));
    }
    places
}

/// The hosts below each leaf, in the order of its ports.
fn columns(network: &Network) -> BTreeMap<usize, Vec<(&str, Role)>> {
    let numbers = network.switch_numbers();
    let roles: BTreeMap<&str, Role> =
        network.hosts.iter().map(|host| (host.name.as_str(), host.role)).collect();
    let mut columns: BTreeMap<usize, Vec<(u32, &str, Role)>> = BTreeMap::new();
    for link in &network.links {
        for (host, leaf) in [(&link.a, &link.b), (&link.b, &link.a)] {
            if let (Some(role), Some(leaf_number)) =
                (roles.get(host.node.as_str()), numbers.get(leaf.node.as_str()))
            {
                columns.entry(*leaf_number).or_default().push((leaf.port, &host.node, *role));
            }
        }
    }
    let sorted = columns.into_iter().map(|(leaf, mut column)| {
        column.sort_by_key(|(port, ..)| *port);
        (leaf, column.into_iter().map(|(_, name, role)| (name, role)).collect())
    });
    sorted.collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
