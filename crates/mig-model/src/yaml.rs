//! YAML that people write: what is wrong with it is said in one line that begins with the line's number.

use serde::de::DeserializeOwned;

pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| describe(&error))
}

fn describe(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
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
