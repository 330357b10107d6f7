//! The RDMA of a daemon, from its configuration, and what went by which transport.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use anyhow::{Context, Result};
use ff2_fabric::{
    Rdma,
    counters::{Counters, Transport as Carrier, TransportCounters},
    rdma::{Classes, RdmaConfig},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use crate::config::{NetworkConfig, Transport};

/// `None`: this process uses TCP, which was said if it was not asked for. A device may still come, if it is there then.
///
/// # Errors
/// RDMA is demanded and cannot be had, or a subnet is none.
pub fn rdma(network: &NetworkConfig) -> Result<Option<Arc<Rdma>>> {
    if network.transport == Transport::Tcp {
        return Ok(None);
    }
    let subnets = network.rdma_subnets.iter().map(|subnet| subnet.parse());
    let subnets = subnets.collect::<Result<_, String>>().map_err(anyhow::Error::msg);
    let config = RdmaConfig {
        demanded: network.transport == Transport::Rdma,
        subnets: subnets.context("read `rdma_subnets`")?,
        trusted: network.rdma_trusted,
        classes: Classes {
            metadata: network.rdma_metadata.into(),
            storage: network.rdma_storage.into(),
            checkpoint: network.rdma_checkpoint.into(),
            collective: network.rdma_collective.into(),
        },
        workload: network.workload.into(),
        messages: network.rdma_messages,
        ..RdmaConfig::default()
    };
    match Rdma::open(config).map_err(anyhow::Error::from) {
        Ok(rdma) => Ok(Some(rdma)),
        Err(why) if network.transport == Transport::Auto => {
            tracing::info!(why = format!("{why:#}"), "no RDMA here: TCP serves");
            Ok(None)
        }
        Err(why) => Err(why.context("use RDMA, which `transport = \"rdma\"` demands")),
    }
}

/// Counters of a server and of a process's calls, as `/metrics` shows them.
#[derive(Debug)]
pub struct Traffic {
    sides: Vec<(&'static str, Arc<Counters>)>,
}

impl Traffic {
    pub fn new(served: &Arc<Counters>, called: &Arc<Counters>) -> Self {
        Self { sides: vec![("server", served.clone()), ("client", called.clone())] }
    }

    /// Of who serves nobody.
    pub fn of_client(called: &Arc<Counters>) -> Self {
        Self { sides: vec![("client", called.clone())] }
    }
}

/// What is shown of a transport.
type Figure = fn(&TransportCounters) -> u64;

impl Collector for Traffic {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let counters: [(&str, &str, Figure); 3] = [
            ("fabric_calls", "Calls by transport", |of| of.calls.load(Relaxed)),
            ("fabric_bytes_in", "Bytes of messages and what belongs to them that came", |of| {
                of.bytes_in.load(Relaxed)
            }),
            ("fabric_bytes_out", "Bytes of messages and what belongs to them that left", |of| {
                of.bytes_out.load(Relaxed)
            }),
        ];
        for (name, help, figure) in counters {
            let kind = ConstCounter::new(0u64).metric_type();
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (labels, counters) in self.each() {
                ConstCounter::new(figure(counters)).encode(family.encode_family(&labels)?)?;
            }
        }
        let kind = ConstGauge::new(0i64).metric_type();
        let help = "Connections that are open, by transport";
        let mut family = encoder.encode_descriptor("fabric_connections", help, None, kind)?;
        for (labels, counters) in self.each() {
            let open = counters.connections.load(Relaxed);
            ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX))
                .encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

type Labels = [(&'static str, &'static str); 2];

impl Traffic {
    fn each(&self) -> impl Iterator<Item = (Labels, &TransportCounters)> {
        self.sides.iter().flat_map(|(side, counters)| {
            Carrier::ALL.iter().map(move |carrier| {
                ([("side", *side), ("transport", carrier.name())], counters.transport(*carrier))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn tcp_asks_for_no_device_and_what_is_demanded_fails_in_words() {
        assert!(rdma(&NetworkConfig::default()).unwrap().is_none());
        let demanded = NetworkConfig { transport: Transport::Rdma, ..NetworkConfig::default() };
        let auto = NetworkConfig { transport: Transport::Auto, ..NetworkConfig::default() };
        let has_devices =
            std::fs::read_dir("/sys/class/infiniband").is_ok_and(|all| all.count() > 0);
        let has_library = match rdma(&demanded) {
            Ok(rdma) => {
                assert!(rdma.is_some() && has_devices);
                true
            }
            Err(why) => {
                let why = format!("{why:#}");
                assert!(!has_devices && why.contains("RDMA"), "{why}");
                !why.contains("libibverbs cannot be loaded")
            }
        };
        // A device may come later.
        assert_eq!(rdma(&auto).unwrap().is_some(), has_library);
        let wrong = NetworkConfig { rdma_subnets: vec!["eth0".into()], ..auto };
        let why = format!("{:#}", rdma(&wrong).unwrap_err());
        assert!(why.contains("`eth0` is no subnet"), "{why}");
    }

    #[test]
    fn traffic_is_shown_by_transport_and_side() {
        let (served, called) = (Counters::new(), Counters::new());
        served.transport(Carrier::Rdma).bytes_in.store(7, Relaxed);
        called.transport(Carrier::Tcp).calls.store(3, Relaxed);
        let metrics = Metrics::new("ff2-storaged", "1");
        metrics.collector(Traffic::new(&served, &called));
        let text = metrics.encode();
        for line in [
            "ff2_storaged_fabric_bytes_in_total{side=\"server\",transport=\"rdma\"} 7",
            "ff2_storaged_fabric_calls_total{side=\"client\",transport=\"tcp\"} 3",
            "ff2_storaged_fabric_connections{side=\"server\",transport=\"shm\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
