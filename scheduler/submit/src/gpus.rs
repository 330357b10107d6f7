//! How many GPUs a job asks for, and of which kind.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{problem::Malformed, text::digits};

/// GPUs of one kind: `8`, or `a100:8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    /// 0: none.
    pub count: u32,
    /// Any kind will do if nothing is said.
    pub kind: Option<String>,
}

impl Gpus {
    /// Of Slurm's `--gres`: `gpu`, `gpu:N`, `gpu:KIND`, `gpu:KIND:N`, or `none`.
    ///
    /// # Errors
    /// For all else: GPUs are what nodes have besides cores and memory.
    pub fn from_gres(text: &str) -> Result<Self, Malformed> {
        let malformed =
            || Malformed::new(text, "resource", "gpu, gpu:COUNT, gpu:KIND or gpu:KIND:COUNT");
        if text == "none" {
            return Ok(Self { count: 0, kind: None });
        }
        match text.strip_prefix("gpu").ok_or_else(malformed)? {
            "" => Ok(Self { count: 1, kind: None }),
            rest => {
                let rest = rest.strip_prefix(':').ok_or_else(malformed)?;
                if is_kind(rest) {
                    return Ok(Self { count: 1, kind: Some(rest.to_owned()) });
                }
                rest.parse().map_err(|_| malformed())
            }
        }
    }
}

/// Kinds are words that are no numbers: `a100`, `nvidia-h100-80gb`.
fn is_kind(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().all(is_part) && text.contains(|c: char| c.is_ascii_alphabetic())
}

impl FromStr for Gpus {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed =
            || Malformed::new(text, "number of GPUs", "COUNT or KIND:COUNT, with one kind of GPU");
        let (kind, count) = match text.rsplit_once(':') {
            Some((kind, count)) => (Some(kind), count),
            None => (None, text),
        };
        if kind.is_some_and(|kind| !is_kind(kind)) {
            return Err(malformed());
        }
        let count = digits(count).ok_or_else(malformed)?;
        Ok(Self { count, kind: kind.map(str::to_owned) })
    }
}

impl fmt::Display for Gpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = &self.kind {
            write!(f, "{kind}:")?;
        }
        write!(f, "{}", self.count)
    }
}

impl Serialize for Gpus {
    /// As a number where it is one: text would be put in quotes.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.kind {
            Some(_) => to.collect_str(self),
            None => to.serialize_u32(self.count),
        }
    }
}

impl<'de> Deserialize<'de> for Gpus {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(count: u32, kind: Option<&str>) -> Gpus {
        Gpus { count, kind: kind.map(str::to_owned) }
    }

    #[test]
    fn gpus_have_kinds() {
        assert_eq!("8".parse(), Ok(gpus(8, None)));
        assert_eq!("a100:8".parse(), Ok(gpus(8, Some("a100"))));
        assert_eq!(gpus(8, Some("a100")).to_string(), "a100:8");
        for text in ["", ":8", "a100", "a100:", "a100:2,v100:1", "1:2", "a b:2", "-1"] {
            assert!(text.parse::<Gpus>().is_err(), "{text}");
        }
    }

    #[test]
    fn resources_are_gpus() {
        assert_eq!(Gpus::from_gres("gpu"), Ok(gpus(1, None)));
        assert_eq!(Gpus::from_gres("gpu:4"), Ok(gpus(4, None)));
        assert_eq!(Gpus::from_gres("gpu:h100"), Ok(gpus(1, Some("h100"))));
        assert_eq!(Gpus::from_gres("gpu:h100:4"), Ok(gpus(4, Some("h100"))));
        assert_eq!(Gpus::from_gres("none"), Ok(gpus(0, None)));
        for text in
            ["", "gpus:4", "gpu:", "lustre:1", "gpu:2,nvme:1", "gpu:a100:2(S:0-1)", "shard:1"]
        {
            assert!(Gpus::from_gres(text).is_err(), "{text}");
        }
    }
}
