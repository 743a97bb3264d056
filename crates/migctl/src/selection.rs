//! Which GPUs are meant.

use std::str::FromStr;

/// One word of `--gpuid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    All,
    /// NVML's index.
    Index(u32),
    /// `GPU-...`, or its beginning.
    Uuid(String),
    /// As the kernel writes it: `0000:07:00.0`.
    Pci(String),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self::Index).map_err(|_| format!("there is no GPU of index {text}"));
        }
        let is_uuid = |rest: &str| rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if text.strip_prefix("GPU-").is_some_and(is_uuid) {
            return Ok(Self::Uuid(text.to_owned()));
        }
        if text.starts_with("MIG-") {
            return Err("this is the UUID of an instance, expected that of its GPU".to_owned());
        }
        pci_address(text)
            .map(Self::Pci)
            .ok_or_else(|| "expected an index (0), a UUID (GPU-...), a PCI address (0000:07:00.0) or all".to_owned())
    }
}

/// `07:00.0`, `0000:07:00.0` and nvidia-smi's `00000000:07:00.0`, as the kernel writes them.
pub(crate) fn pci_address(text: &str) -> Option<String> {
    let (rest, function) = text.split_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let number = |digits: &str, longest: usize| {
        let plain = digits.len() <= longest && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (domain, bus) = (number(domain, 8)?, number(bus, 2)?);
    let (device, function) = (number(device, 2)?, number(function, 1)?);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_gpu_is_read() {
        for (text, selector) in [
            ("all", Selector::All),
            ("12", Selector::Index(12)),
            ("GPU-aaaaaaaa-0000", Selector::Uuid("GPU-aaaaaaaa-0000".to_owned())),
            ("3B:00.0", Selector::Pci("0000:3b:00.0".to_owned())),
            ("0000:3b:00.0", Selector::Pci("0000:3b:00.0".to_owned())),
            ("00000000:3B:00.0", Selector::Pci("0000:3b:00.0".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(selector));
        }
        for text in ["", "-1", "first", "GPU-x\u{1b}", "MIG-aaaa", "3b:00", "0000:3b:00.00", "99999999999"] {
            assert!(text.parse::<Selector>().is_err(), "{text:?}");
        }
    }
}
