//! By what ranks reach each other, from the job's environment (docs/JOBS.md), and whether what they exchange is
//! encrypted on the way, which the job says itself.

use std::sync::Arc;

use ff2_fabric::{
    Rdma,
    rdma::{Class, Classes, RdmaConfig, Subnet, Workload},
    tls::{ClientTls, ServerTls, TlsError},
};

use crate::CollectiveError;

/// For a rank that comes in clear to one that encrypts.
const ALL_OR_NONE: &str =
    "the ranks of a job encrypt all or none: start each with the same `encrypt`";

/// The network of a rank. By default TCP, and shared memory within a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub transport: Transport,
    /// RDMA leaves from addresses within these ranges; none: from where the route to the other rank leads.
    pub rdma_subnets: Vec<Subnet>,
    /// How switches are to treat RDMA between ranks.
    pub rdma_class: Class,
    /// What leaves the host is encrypted (TLS 1.3), and so goes by TCP; who comes in clear is refused. Alike on all
    /// ranks.
    pub encrypt: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Never RDMA.
    #[default]
    Tcp,
    /// An error without a device; also between ranks of one host.
    Rdma,
    /// By RDMA where both sides can.
    Auto,
}

impl Network {
    /// By `FF2_TRANSPORT` (`tcp`, `rdma` or `auto`), `FF2_RDMA_SUBNETS` (ranges with commas between them) and
    /// `FF2_RDMA_CLASS` (`SERVICE_LEVEL/TRAFFIC_CLASS`), each of which may be missing.
    pub(crate) fn from_variables(
        get: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, CollectiveError> {
        let read = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let wrong = |name: &'static str, found: String, expected: &str| {
            CollectiveError::Environment { name, found, expected: expected.into() }
        };
        let mut network = Self::default();
        if let Some(found) = read("FF2_TRANSPORT") {
            network.transport = match found.as_str() {
                "tcp" => Transport::Tcp,
                "rdma" => Transport::Rdma,
                "auto" => Transport::Auto,
                _ => return Err(wrong("FF2_TRANSPORT", found, "tcp, rdma or auto")),
            };
        }
        if let Some(found) = read("FF2_RDMA_SUBNETS") {
            let subnets: Result<_, String> =
                found.split(',').map(|part| part.trim().parse()).collect();
            let expected = "ranges of addresses such as 10.77.0.0/16,fd00::/8";
            network.rdma_subnets =
                subnets.map_err(|_| wrong("FF2_RDMA_SUBNETS", found, expected))?;
        }
        if let Some(found) = read("FF2_RDMA_CLASS") {
            let expected =
                "a service level from 0 to 15 and a traffic class from 0 to 255, such as 4/104";
            let class = class(&found).ok_or_else(|| wrong("FF2_RDMA_CLASS", found, expected))?;
            network.rdma_class = class;
        }
        Ok(network)
    }

    /// How the two ends of connections are encrypted; `None`: not.
    pub(crate) fn tls(&self) -> Result<(Option<ServerTls>, Option<ClientTls>), CollectiveError> {
        if !self.encrypt {
            return Ok((None, None));
        }
        let make = || Ok((Some(ServerTls::by_key(ALL_OR_NONE)?), Some(ClientTls::by_key()?)));
        make().map_err(|source: TlsError| CollectiveError::Encrypt(source))
    }

    /// This process's RDMA; `None`: TCP serves.
    pub(crate) fn open(&self) -> Result<Option<Arc<Rdma>>, CollectiveError> {
        let demanded = self.transport == Transport::Rdma;
        if demanded && self.encrypt {
            let detail = "FF2_TRANSPORT=rdma demands what nobody encrypts: say auto or tcp, or do not encrypt";
            return Err(CollectiveError::Input(detail.into()));
        }
        if self.transport == Transport::Tcp || self.encrypt {
            return Ok(None);
        }
        let config = RdmaConfig {
            demanded,
            subnets: self.rdma_subnets.clone(),
            classes: Classes { collective: self.rdma_class, ..Classes::default() },
            workload: Workload::Collectives,
            ..RdmaConfig::default()
        };
        match Rdma::open(config) {
            Ok(rdma) => Ok(Some(rdma)),
            Err(source) if demanded => Err(CollectiveError::Rdma(source)),
            Err(why) => {
                tracing::info!(%why, "no RDMA here: TCP serves");
                Ok(None)
            }
        }
    }
}

fn class(text: &str) -> Option<Class> {
    let (level, traffic) = text.split_once('/')?;
    let service_level = level.trim().parse().ok().filter(|level| *level <= 15)?;
    Some(Class { service_level, traffic_class: traffic.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn read(variables: &[(&'static str, &str)]) -> Result<Network, CollectiveError> {
        Network::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_says_by_what_and_in_which_class() {
        assert_eq!(read(&[]).unwrap(), Network::default());
        let all = [
            ("FF2_TRANSPORT", "auto"),
            ("FF2_RDMA_SUBNETS", "10.77.0.0/16, fd00::/8"),
            ("FF2_RDMA_CLASS", "4/104"),
        ];
        let network = read(&all).unwrap();
        assert_eq!((network.transport, network.rdma_subnets.len()), (Transport::Auto, 2));
        assert_eq!(network.rdma_class, Class { service_level: 4, traffic_class: 104 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value) in [
            ("FF2_TRANSPORT", "ib"),
            ("FF2_RDMA_SUBNETS", "eth0"),
            ("FF2_RDMA_CLASS", "16/0"),
            ("FF2_RDMA_CLASS", "4/256"),
            ("FF2_RDMA_CLASS", "4"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}: found {value}, expected")), "{error}");
        }
    }

    #[test]
    fn what_is_encrypted_goes_by_tcp_and_rdma_cannot_be_demanded_too() {
        let of = |transport| Network { transport, encrypt: true, ..Network::default() };
        assert!(of(Transport::Tcp).open().unwrap().is_none());
        assert!(of(Transport::Auto).open().unwrap().is_none());
        let error = of(Transport::Rdma).open().unwrap_err().to_string();
        assert!(error.contains("say auto or tcp, or do not encrypt"), "{error}");
    }

    #[test]
    fn a_device_is_asked_for_only_where_rdma_is() {
        assert!(Network::default().open().unwrap().is_none());
        let demanded = Network { transport: Transport::Rdma, ..Network::default() }.open();
        let there = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|all| all.count() > 0);
        assert_eq!(demanded.is_ok(), there);
        let has_library = match demanded {
            Err(CollectiveError::Rdma(source)) => {
                !source.to_string().contains("libibverbs cannot be loaded")
            }
            _ => true,
        };
        // A device may come later.
        let auto = Network { transport: Transport::Auto, ..Network::default() };
        assert_eq!(auto.open().unwrap().is_some(), has_library);
    }
}
