//! The network by number, with its switches ranked.

use std::collections::{BTreeMap, BTreeSet};

use ff2_topology::{Network, Role};

/// A link in one direction: twice the place of the link in the network, one more from its end `b` to `a`.
pub type Channel = usize;

/// A network port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The place of the host in the network.
    pub host: usize,
    /// From 1.
    pub nic: u32,
    pub role: Role,
    /// The switch it is plugged into, and the port there.
    pub switch: usize,
    pub port: u32,
    /// Of what the host sends. The other direction is `sends ^ 1`.
    pub sends: Channel,
}

/// What is at the other end of a switch's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Switch(usize),
    Endpoint(usize),
}

/// A network that cannot be routed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: mend the wiring first (`ff2ctl fabric check` names all faults)")]
pub struct Unsound(pub String);

#[derive(Clone, Debug)]
pub struct Graph {
    pub(crate) endpoints: Vec<Endpoint>,
    /// What is at each port of each switch, and the channel out of it.
    pub(crate) ports: Vec<BTreeMap<u32, (Peer, Channel)>>,
    /// Higher is farther from hosts; no two are equal, so each link has one way up.
    pub(crate) ranks: Vec<(u32, usize)>,
    channels: usize,
    of_host: BTreeMap<(usize, u32), usize>,
}

impl Graph {
    pub fn new(network: &Network) -> Result<Self, Unsound> {
        let switches = network.switch_numbers();
        let hosts: BTreeMap<&str, usize> =
            network.hosts.iter().enumerate().map(|(at, host)| (host.name.as_str(), at)).collect();
        let mut ports = vec![BTreeMap::new(); network.switches.len()];
        let mut plugged = Vec::new();
        for (at, link) in network.links.iter().enumerate() {
            for (near, far, channel) in [(&link.a, &link.b, 2 * at), (&link.b, &link.a, 2 * at + 1)]
            {
                let Some(&switch) = switches.get(near.node.as_str()) else {
                    if !hosts.contains_key(near.node.as_str()) {
                        return Err(Unsound(format!(
                            "a cable leads to {near}, which is not described"
                        )));
                    }
                    continue;
                };
                if let Some(&other) = switches.get(far.node.as_str()) {
                    if ports[switch].insert(near.port, (Peer::Switch(other), channel)).is_some() {
                        return Err(Unsound(format!("two cables in port {near}")));
                    }
                } else if let Some(&host) = hosts.get(far.node.as_str()) {
                    let role = network.hosts[host].role;
                    plugged.push(Endpoint {
                        host,
                        nic: far.port,
                        role,
                        switch,
                        port: near.port,
                        sends: channel ^ 1,
                    });
                }
            }
        }
        plugged.sort_by_key(|endpoint| (endpoint.switch, endpoint.port));
        let mut of_host = BTreeMap::new();
        for (number, endpoint) in plugged.iter().enumerate() {
            let peer = (Peer::Endpoint(number), endpoint.sends ^ 1);
            let twice = ports[endpoint.switch].insert(endpoint.port, peer).is_some()
                || of_host.insert((endpoint.host, endpoint.nic), number).is_some();
            if twice {
                let name = &network.hosts[endpoint.host].name;
                return Err(Unsound(format!("two cables at port {} of host {name}", endpoint.nic)));
            }
        }
        let layers = network.layers();
        let ranks = layers.into_iter().enumerate().map(|(at, layer)| (layer, at)).collect();
        Ok(Self { endpoints: plugged, ports, ranks, channels: 2 * network.links.len(), of_host })
    }

    /// In the order of leaves and their ports.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of a host's network port.
    pub fn endpoint(&self, host: usize, nic: u32) -> Option<usize> {
        self.of_host.get(&(host, nic)).copied()
    }

    /// All links of a switch: what fails with it.
    pub fn links_of(&self, switch: usize) -> BTreeSet<usize> {
        self.ports[switch].values().map(|(_, channel)| channel / 2).collect()
    }

    /// For packets to a leaf: the ports of each switch on a shortest path that goes up and then only down. Once a
    /// switch can go down it does, whatever the way it was reached: so tables by destination alone stay legal.
    pub(crate) fn candidates(&self, leaf: usize, failed: &BTreeSet<usize>) -> Vec<Vec<u32>> {
        let alive = |channel: &Channel| !failed.contains(&(channel / 2));
        let mut down = vec![u32::MAX; self.ports.len()];
        down[leaf] = 0;
        let mut open = std::collections::VecDeque::from([leaf]);
        while let Some(at) = open.pop_front() {
            for (peer, channel) in self.ports[at].values() {
                if let Peer::Switch(above) = *peer
                    && alive(channel)
                    && self.ranks[above] > self.ranks[at]
                    && down[above] == u32::MAX
                {
                    down[above] = down[at] + 1;
                    open.push_back(above);
                }
            }
        }
        let mut from_the_top: Vec<usize> = (0..self.ports.len()).collect();
        from_the_top.sort_by_key(|at| std::cmp::Reverse(self.ranks[*at]));
        let mut distance = down.clone();
        let mut candidates = vec![Vec::new(); self.ports.len()];
        for at in from_the_top {
            if at == leaf {
                continue;
            }
            let goes_down = down[at] != u32::MAX;
            let steps = self.ports[at].iter().filter_map(|(port, (peer, channel))| match *peer {
                Peer::Switch(next) if alive(channel) => {
                    let is_down = self.ranks[next] < self.ranks[at];
                    let left = if is_down { down[next] } else { distance[next] };
                    (is_down == goes_down && left != u32::MAX).then_some((left, *port))
                }
                _ => None,
            });
            let steps: Vec<(u32, u32)> = steps.collect();
            if let Some(least) = steps.iter().map(|(left, _)| *left).min() {
                distance[at] = least + 1;
                candidates[at] = steps
                    .iter()
                    .filter(|(left, _)| *left == least)
                    .map(|(_, port)| *port)
                    .collect();
            }
        }
        candidates
    }
}
