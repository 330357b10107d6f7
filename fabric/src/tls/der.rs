//! The little that is read of a certificate (X.509 in DER): until when it holds, and for which names.
//!
//! Only certificates of the cluster's own authority come here, from files. What cannot be read is `None`; trust
//! in a certificate is rustls' business alone.

use std::net::{Ipv4Addr, Ipv6Addr};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, explicit: the version, before the serial number.
const VERSION: u8 = 0xa0;
/// `[3]`, explicit: the extensions, after the public key.
const EXTENSIONS: u8 = 0xa3;
/// `[2]` and `[7]` of a GeneralName.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subjectAltName.
const ALT_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Unix time.
    pub expires_s: u64,
    /// Host names and addresses, in its order.
    pub names: Vec<String>,
}

impl Shown {
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate).take(SEQUENCE)?;
        let mut body = outer.take(SEQUENCE)?;
        if body.is(VERSION) {
            body.take(VERSION)?;
        }
        body.take(INTEGER)?;
        // The signature's algorithm, and the issuer.
        body.take(SEQUENCE)?;
        body.take(SEQUENCE)?;
        let mut validity = body.take(SEQUENCE)?;
        validity.any()?;
        let (kind, until) = validity.any()?;
        let expires_s = time(kind, until.0)?;
        // The subject, and its key.
        body.take(SEQUENCE)?;
        body.take(SEQUENCE)?;
        let mut names = Vec::new();
        while !body.0.is_empty() {
            let (kind, mut content) = body.any()?;
            if kind == EXTENSIONS {
                names = alt_names(content.take(SEQUENCE)?)?;
            }
        }
        Some(Self { expires_s, names })
    }
}

fn alt_names(mut extensions: Der<'_>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let mut extension = extensions.take(SEQUENCE)?;
        if extension.take(OBJECT)?.0 != ALT_NAMES {
            continue;
        }
        if !extension.is(OCTETS) {
            // Whether it is critical.
            extension.any()?;
        }
        let mut list = extension.take(OCTETS)?.take(SEQUENCE)?;
        while !list.0.is_empty() {
            let (kind, content) = list.any()?;
            names.extend(name(kind, content.0));
        }
    }
    Some(names)
}

fn name(kind: u8, content: &[u8]) -> Option<String> {
    match kind {
        DNS_NAME => String::from_utf8(content.to_vec()).ok(),
        IP_ADDRESS if content.len() == 4 => {
            let octets: [u8; 4] = content.try_into().ok()?;
            Some(Ipv4Addr::from(octets).to_string())
        }
        IP_ADDRESS => {
            let octets: [u8; 16] = content.try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_string())
        }
        _ => None,
    }
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
fn time(kind: u8, text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |at: usize| rest.get(2 * at..2 * at + 2)?.parse::<u8>().ok();
    let month = time::Month::try_from(part(0)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, part(1)?).ok()?;
    let at = date.with_hms(part(2)?, part(3)?, part(4)?).ok()?;
    u64::try_from(at.assume_utc().unix_timestamp()).ok()
}

/// Values that follow each other.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn is(&self, kind: u8) -> bool {
        self.0.first() == Some(&kind)
    }

    /// The next value, which must be of this kind.
    fn take(&mut self, kind: u8) -> Option<Self> {
        let (found, content) = self.any()?;
        (found == kind).then_some(content)
    }

    /// The next value and its kind.
    fn any(&mut self) -> Option<(u8, Self)> {
        let (&kind, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // So many bytes of the length follow; more than three are no certificate.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((kind, Self(content)))
    }
}
