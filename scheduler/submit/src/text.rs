//! Values that are one word of text wherever they are written.

/// Lets serde write a type as its `Display` says and read it as its `FromStr` does, so that YAML and
/// options share one notation and its messages.
macro_rules! as_text {
    ($name:ident) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(<D::Error as ::serde::de::Error>::custom)
            }
        }
    };
}

pub(crate) use as_text;

/// Numbers of things that there is at least one of, for fields that may be left out.
pub(crate) mod count {
    use std::num::NonZeroU32;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use crate::problem::Malformed;

    /// # Errors
    /// Names what is counted.
    pub(crate) fn parse(text: &str, what: &'static str) -> Result<NonZeroU32, Malformed> {
        super::digits(text)
            .ok_or_else(|| Malformed::new(text, what, "a whole number from 1 to 4294967295"))
    }

    pub(crate) fn serialize<S: Serializer>(
        count: &Option<NonZeroU32>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        count.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<NonZeroU32>, D::Error> {
        Ok(Option::<Count>::deserialize(from)?.map(|Count(count)| count))
    }

    struct Count(NonZeroU32);

    impl<'de> Deserialize<'de> for Count {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            parse(&String::deserialize(from)?, "number").map(Count).map_err(D::Error::custom)
        }
    }
}

/// A number as people write it: digits alone, no sign.
pub(crate) fn digits<N: std::str::FromStr>(text: &str) -> Option<N> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { text.parse().ok() } else { None }
}
