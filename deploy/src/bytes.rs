//! Sizes as people write and read them.

use std::{fmt, str::FromStr};

/// A number of bytes: `8GiB`, `512M`, `4096`. Units are powers of 1024, however they are written.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub(crate) struct ByteSize(pub(crate) u64);

const UNITS: [(&str, u32); 5] = [("T", 40), ("G", 30), ("M", 20), ("K", 10), ("", 0)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim().to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
        let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
        let number: Option<u64> = number.parse().ok();
        let size = shift.zip(number).and_then(|(shift, number)| number.checked_mul(1 << shift));
        size.map(Self).ok_or_else(|| format!("{text:?} is no size; write for example 8GiB or 512M"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) =
            UNITS.iter().find(|(_, shift)| self.0 >> shift > 0).unwrap_or(&UNITS[4]);
        if *shift == 0 {
            return f.pad(&format!("{} B", self.0));
        }
        let value = self.0 as f64 / (1_u64 << shift) as f64;
        let decimals = usize::from(value < 100.0 && value.fract() != 0.0);
        f.pad(&format!("{value:.decimals$} {unit}iB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("8GiB", 8 << 30),
            ("512m", 512 << 20),
            ("1 kb", 1024),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "G", "8X", "-1", "1.5G", "99999999999T"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(8 << 30).to_string(), "8 GiB");
        assert_eq!(ByteSize(1_536).to_string(), "1.5 KiB");
        assert_eq!(ByteSize(100).to_string(), "100 B");
        assert_eq!(ByteSize(0).to_string(), "0 B");
    }
}
