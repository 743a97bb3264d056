//! Which GPU is meant.

use std::fmt;
use std::str::FromStr;

use super::Filter;
use crate::geometry::Geometry;
use crate::survey::GpuSurvey;

/// What a GPU can be told by.
#[derive(Debug, Clone, Copy)]
pub struct GpuIdentity<'a> {
    /// NVML's index.
    pub index: u32,
    /// Its UUID; a pretended one may have none.
    pub uuid: Option<&'a str>,
    /// Its PCI address, as the kernel writes it.
    pub pci_address: Option<&'a str>,
    /// The product's name.
    pub name: &'a str,
    /// PCI device and vendor, and the subsystem's.
    pub pci_ids: Option<(u32, u32)>,
    /// How it can be cut.
    pub geometry: Option<&'a Geometry>,
}

impl<'a> From<&'a GpuSurvey> for GpuIdentity<'a> {
    fn from(survey: &'a GpuSurvey) -> Self {
        Self {
            index: survey.gpu.index,
            uuid: Some(survey.gpu.uuid.as_str()),
            pci_address: survey.gpu.pci_address.as_deref(),
            name: &survey.gpu.name,
            pci_ids: survey.pci_ids,
            geometry: survey.geometry.as_ref(),
        }
    }
}

/// A GPU as people name it: by index, UUID or PCI address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuSelector {
    /// NVML's index.
    Index(u32),
    /// `GPU-...`
    Uuid(String),
    /// Domain, bus, device and function.
    Pci([u32; 4]),
}

/// A text that names no GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unable to read {0:?} as a GPU, expected an index such as 0, a UUID (GPU-...) or a PCI address such as 0000:07:00.0"
)]
pub struct SelectorError(String);

fn address(text: &str) -> Option<[u32; 4]> {
    let hexadecimal = |text: &str| {
        let plain = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, rest) = match parts.as_slice() {
        [bus, rest] => (0, bus, rest),
        [domain, bus, rest] => (hexadecimal(domain)?, bus, rest),
        _ => return None,
    };
    let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
    Some([domain, hexadecimal(bus)?, hexadecimal(device)?, hexadecimal(function)?])
}

impl FromStr for GpuSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Index).map_err(|_| SelectorError(text.to_owned()));
        }
        if text.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("GPU-")) && text.len() > 4 {
            return Ok(Self::Uuid(text.to_owned()));
        }
        address(text).map(Self::Pci).ok_or_else(|| SelectorError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for GpuSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Uuid(uuid) => f.write_str(uuid),
            Self::Pci([domain, bus, device, function]) => write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}"),
        }
    }
}

impl GpuSelector {
    /// Whether it names this GPU.
    pub fn names(&self, gpu: &GpuIdentity<'_>) -> bool {
        match self {
            Self::Index(index) => *index == gpu.index,
            Self::Uuid(uuid) => gpu.uuid.is_some_and(|known| known.eq_ignore_ascii_case(uuid)),
            Self::Pci(wanted) => gpu.pci_address.and_then(address).as_ref() == Some(wanted),
        }
    }
}

impl Filter {
    pub(super) fn lets_through(&self, gpu: &GpuIdentity<'_>) -> bool {
        match self {
            Self::Product(names) => names.iter().any(|name| is_product(name, gpu.name)),
            Self::PciIds(ids) => gpu.pci_ids.is_some_and(|(device, subsystem)| {
                ids.iter().any(|(wanted, within)| *wanted == device && within.is_none_or(|within| within == subsystem))
            }),
        }
    }
}

/// `A100-SXM4-40GB` and `NVIDIA A100*` both mean `NVIDIA A100-SXM4-40GB`.
fn is_product(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let short = name.strip_prefix("nvidia ").unwrap_or(&name);
    [name.as_str(), short].into_iter().any(|name| matches(pattern.as_bytes(), name.as_bytes()))
}

/// `*` stands for any run of characters.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    match first {
        b'*' => {
            let rest: &[u8] =
                rest.iter().position(|byte| *byte != b'*').and_then(|at| rest.get(at..)).unwrap_or_default();
            (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| matches(rest, name)))
        }
        other => name.split_first().is_some_and(|(byte, name)| byte == other && matches(rest, name)),
    }
}
