use std::fmt;
use std::str::FromStr;

/// A way to tell a container runtime which devices a container gets, as NVIDIA's plugin names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceListStrategy {
    /// `NVIDIA_VISIBLE_DEVICES` names them: for NVIDIA's container runtime.
    Envvar,
    /// Mounts below `/var/run/nvidia-container-devices` name them: the same, but no image can ask for devices that way.
    VolumeMounts,
    /// An annotation names them as CDI devices, for a kubelet that does not pass on CDI names.
    CdiAnnotations,
    /// The kubelet passes on their CDI names.
    CdiCri,
}

/// By what NVIDIA's container runtime is told a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceIdStrategy {
    /// Its UUID.
    #[default]
    Uuid,
    /// Its place: `0` or `0:1`.
    Index,
}

/// Which of equally good devices are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PreferredAllocation {
    /// On as few GPUs as possible.
    #[default]
    Packed,
    /// On as many GPUs as possible.
    Spread,
}

/// How much a slice that is handed out is shared by others already, where it is shared at all. NVIDIA's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedAllocation {
    /// By as few as possible.
    #[default]
    Distributed,
    /// By as many as possible, so that other slices stay unused.
    Packed,
}

/// A text that is none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not known, expected {expected}")]
pub struct UnknownWord {
    text: String,
    expected: &'static str,
}

impl DeviceListStrategy {
    /// Whether devices are named by a CDI spec.
    pub fn is_cdi(self) -> bool {
        matches!(self, Self::CdiAnnotations | Self::CdiCri)
    }
}

macro_rules! words {
    ($type:ident, $expected:literal, $($word:literal => $variant:ident),+) => {
        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { text: text.to_owned(), expected: $expected }),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}

words!(DeviceListStrategy, "envvar, volume-mounts, cdi-annotations or cdi-cri",
    "envvar" => Envvar, "volume-mounts" => VolumeMounts, "cdi-annotations" => CdiAnnotations, "cdi-cri" => CdiCri);
words!(DeviceIdStrategy, "uuid or index", "uuid" => Uuid, "index" => Index);
words!(PreferredAllocation, "packed or spread", "packed" => Packed, "spread" => Spread);
words!(SharedAllocation, "distributed or packed", "distributed" => Distributed, "packed" => Packed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_nvidias() {
        for word in ["envvar", "volume-mounts", "cdi-annotations", "cdi-cri"] {
            assert_eq!(word.parse::<DeviceListStrategy>().unwrap().to_string(), word);
        }
        let error = "cdi".parse::<DeviceListStrategy>().unwrap_err().to_string();
        assert_eq!(error, "\"cdi\" is not known, expected envvar, volume-mounts, cdi-annotations or cdi-cri");
        assert!("UUID".parse::<DeviceIdStrategy>().is_err());
    }
}
