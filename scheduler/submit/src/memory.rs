//! How much memory a job asks for.

use std::{fmt, str::FromStr};

use crate::{
    problem::Malformed,
    text::{as_text, digits},
};

/// Memory of each node.
///
/// Read from `4G`, `512M`, `2T`, `4096K` or a number of MiB, as Slurm has it; `0` and `all` are all that a
/// node has. Units are powers of 1024, and KiB are rounded up to MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// MiB, at least one.
    Mib(u32),
    /// All of the node.
    All,
}

impl FromStr for Memory {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || {
            let forms = "a number with K, M, G or T (M if none), 0 for all of a node, below 4096T";
            Malformed::new(text, "amount of memory", forms)
        };
        if text == "all" {
            return Ok(Self::All);
        }
        let number_end = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (number, unit) = text.split_at(number_end);
        let number: u64 = digits(number).ok_or_else(malformed)?;
        // KiB of one of the unit.
        let factor = match unit {
            "K" | "k" | "KB" => 1,
            "" | "M" | "m" | "MB" => 1 << 10,
            "G" | "g" | "GB" => 1 << 20,
            "T" | "t" | "TB" => 1 << 30,
            _ => return Err(malformed()),
        };
        let mib = number.checked_mul(factor).ok_or_else(malformed)?.div_ceil(1 << 10);
        match u32::try_from(mib) {
            Ok(0) => Ok(Self::All),
            Ok(mib) => Ok(Self::Mib(mib)),
            Err(_) => Err(malformed()),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::All => write!(f, "all"),
            Self::Mib(mib) if mib % (1 << 20) == 0 => write!(f, "{}T", mib >> 20),
            Self::Mib(mib) if mib % (1 << 10) == 0 => write!(f, "{}G", mib >> 10),
            Self::Mib(mib) => write!(f, "{mib}M"),
        }
    }
}

as_text!(Memory);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_slurm_does() {
        let table = [
            ("4G", Memory::Mib(4096), "4G"),
            ("512M", Memory::Mib(512), "512M"),
            ("1536", Memory::Mib(1536), "1536M"),
            ("2T", Memory::Mib(2 << 20), "2T"),
            ("1K", Memory::Mib(1), "1M"),
            ("16GB", Memory::Mib(16 << 10), "16G"),
            ("0", Memory::All, "all"),
        ];
        for (text, memory, shown) in table {
            assert_eq!(text.parse(), Ok(memory), "{text}");
            assert_eq!(memory.to_string(), shown);
            assert_eq!(shown.parse(), Ok(memory));
        }
        for text in ["", "G", "4X", "-4G", "4 G", "1.5G", "4096T", "99999999999999999999"] {
            assert!(text.parse::<Memory>().is_err(), "{text}");
        }
    }
}
