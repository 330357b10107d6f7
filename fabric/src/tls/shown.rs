//! The little that people are shown of a certificate: until when it holds, and for which names.
//!
//! Only certificates of the cluster's own authority come here, from files. Trust in one is rustls' business alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Unix time.
    pub expires_s: u64,
    /// Host names and addresses, in its order.
    pub names: Vec<String>,
}

impl Shown {
    /// `None` if it cannot be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let expires_s = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        let listed = parsed.subject_alternative_name().ok()?;
        let listed = listed.map_or(&[][..], |extension| &extension.value.general_names);
        Some(Self { expires_s, names: listed.iter().filter_map(name).collect() })
    }
}

fn name(of: &GeneralName<'_>) -> Option<String> {
    match *of {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).to_string());
            let v6 =
                || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string());
            v4.or_else(|_| v6()).ok()
        }
        _ => None,
    }
}
