//! Which variables of the submitter's environment a job has.

use std::{fmt, str::FromStr};

use crate::{problem::Malformed, text::as_text};

/// `all`, `none`, or names parted by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inherit {
    All,
    None,
    /// At least one.
    Named(Vec<String>),
}

/// Whether a variable can have this name: letters, digits and `_`, no digit in front.
pub(crate) fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

impl FromStr for Inherit {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "all" | "ALL" => Ok(Self::All),
            "none" | "NONE" | "NIL" => Ok(Self::None),
            names if names.split(',').all(is_name) => {
                Ok(Self::Named(names.split(',').map(str::to_owned).collect()))
            }
            _ => Err(Malformed::new(text, "choice of variables", "all, none, or NAME,NAME,...")),
        }
    }
}

impl fmt::Display for Inherit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::None => write!(f, "none"),
            Self::Named(names) => write!(f, "{}", names.join(",")),
        }
    }
}

as_text!(Inherit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named() {
        for text in ["all", "none", "HOME", "HOME,_PATH2"] {
            assert_eq!(text.parse::<Inherit>().unwrap().to_string(), text);
        }
        assert_eq!("NIL".parse(), Ok(Inherit::None));
        for text in ["", "A,", "2A", "A=1", "A B"] {
            assert!(text.parse::<Inherit>().is_err(), "{text}");
        }
    }
}
