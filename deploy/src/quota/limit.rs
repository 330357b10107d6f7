//! Limits as people write them.

use std::str::FromStr;

use ff2_proto::pb;

use crate::bytes::ByteSize;

/// At most so much; `None`: as much as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

impl Limit {
    pub(crate) fn told(self) -> pb::QuotaLimit {
        pb::QuotaLimit { max: self.0 }
    }
}

/// Of bytes.
impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse::<ByteSize>().map(|size| Self(Some(size.0))),
        }
    }
}

/// A number of things: `500`, `10K`, `1M`; thousands and not powers of two.
pub(crate) fn count(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" => Some(1_u64),
        "K" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        _ => None,
    };
    let count = number.parse().ok().zip(factor).and_then(|(n, f): (u64, _)| n.checked_mul(f));
    let wrong = || format!("{text:?} is no count; write for example 5000, 10K or 1M");
    count.map(|count| Limit(Some(count))).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        assert_eq!("10G".parse(), Ok(Limit(Some(10 << 30))));
        assert_eq!("none".parse(), Ok(Limit(None)));
        assert_eq!(count("none"), Ok(Limit(None)));
        for (text, expected) in [("0", 0), ("5000", 5_000), ("10k", 10_000), ("1M", 1_000_000)] {
            assert_eq!(count(text), Ok(Limit(Some(expected))), "{text}");
        }
        for bad in ["", "K", "1MiB", "-1", "99999999999999G"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert!("ten".parse::<Limit>().is_err());
    }
}
