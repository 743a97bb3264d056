//! YAML that people write: what is wrong with it is said in one line that begins with the line's number.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

/// What the text says, or what is wrong with it and where, in one line.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| describe(&error))
}

fn describe(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    // The parser counts what aliases unfold to, and says so in its own terms.
    let text =
        if text.contains("budget breached") { "it unfolds into more than any such file has".to_owned() } else { text };
    let reason = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match error.location() {
        Some(place) if place.line() > 0 => {
            // The parser says the place at the end; people and editors look for it at the beginning.
            let own = format!(" at line {}, column {}", place.line(), place.column());
            format!("line {}: {}", place.line(), reason.trim_end_matches(&own))
        }
        _ => reason,
    }
}

/// PCI ids are written `0x20B010DE`.
pub(crate) fn hexadecimal(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    digits
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("unable to read {text:?} as a PCI id, expected a number such as 0x20B010DE"))
}

/// Where something was said.
pub(crate) fn line<T>(said: &serde_saphyr::Spanned<T>) -> u64 {
    said.referenced.line()
}

/// A word, or a list, and what to say where it is neither. By hand, since serde's untagged enums forget what was wrong
/// within.
pub(crate) enum WordOrList<T> {
    Word(String),
    List(Vec<T>),
}

/// A name, or the same with more said of it.
pub(crate) enum NameOrFull<T> {
    Name(String),
    Full(T),
}

/// A number or a text, as a text.
pub(crate) struct Scalar(pub(crate) String);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOrList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = WordOrList<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, or a list such as [a, b]")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
                Ok(WordOrList::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(WordOrList::List)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NameOrFull<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NameOrFull<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a profile such as 3g.20gb, or { profile: 3g.20gb, placement: 4 }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                Ok(NameOrFull::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(NameOrFull::Full)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl WordOrList<String> {
    /// A word is a list of one.
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::Word(word) => std::slice::from_ref(word),
            Self::List(list) => list,
        }
    }
}
