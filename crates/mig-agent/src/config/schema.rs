//! The file as NVIDIA's plugin defines it. Theirs passes over keys that it does not know; here they are errors, since what
//! is mistyped would be passed over too.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use mig_device_plugin::{DeviceIdStrategy, DeviceListStrategy};
use mig_model::{
    DeviceReference, MOST_REPLICAS, ResourceDomain, ResourceName, SharedDevices, SharedResource, Strategy, TimeSlicing,
};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct File {
    pub(crate) version: Option<Word<Version>>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) flags: Flags,
    pub(crate) resources: Option<Resources>,
    pub(crate) sharing: Option<Sharing>,
    pub(crate) imex: Option<Imex>,
    /// Ours: what `--health-policy` takes.
    pub(crate) health: Option<mig_health::Settings>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Flags {
    pub(crate) mig_strategy: Option<Word<Strategy>>,
    pub(crate) nvidia_driver_root: Option<String>,
    pub(crate) nvidia_dev_root: Option<String>,
    pub(crate) device_discovery_strategy: Option<String>,
    pub(crate) gdrcopy_enabled: Option<bool>,
    pub(crate) gds_enabled: Option<bool>,
    pub(crate) mofed_enabled: Option<bool>,
    pub(crate) fail_on_init_error: Option<bool>,
    pub(crate) restart_on_device_unhealthy: Option<bool>,
    pub(crate) mps_root: Option<String>,
    #[serde(rename = "useNodeFeatureAPI")]
    pub(crate) use_node_feature_api: Option<bool>,
    pub(crate) plugin: Option<Plugin>,
    pub(crate) gfd: Option<Gfd>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Plugin {
    pub(crate) pass_device_specs: Option<bool>,
    pub(crate) device_list_strategy: Option<Words<DeviceListStrategy>>,
    #[serde(rename = "deviceIDStrategy")]
    pub(crate) device_id_strategy: Option<Word<DeviceIdStrategy>>,
    pub(crate) cdi_annotation_prefix: Option<Word<Prefix>>,
    #[serde(rename = "nvidiaCTKPath")]
    pub(crate) nvidia_ctk_path: Option<String>,
    #[serde(rename = "nvidiaCDIHookPath")]
    pub(crate) nvidia_cdi_hook_path: Option<String>,
    pub(crate) cdi_feature_flags: Option<IgnoredAny>,
    pub(crate) container_driver_root: Option<String>,
    pub(crate) shared_devices_allocation_policy: Option<String>,
}

/// Of NVIDIA's gpu-feature-discovery, which reads the same file.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Gfd {
    pub(crate) oneshot: Option<IgnoredAny>,
    pub(crate) no_timestamp: Option<IgnoredAny>,
    pub(crate) sleep_interval: Option<IgnoredAny>,
    pub(crate) output_file: Option<IgnoredAny>,
    pub(crate) machine_type_file: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Resources {
    #[serde(deserialize_with = "or_default")]
    pub(crate) gpus: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mig: Vec<Named>,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    pub(crate) pattern: String,
    pub(crate) name: Name,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Sharing {
    pub(crate) time_slicing: Option<Slicing>,
    pub(crate) mps: Option<IgnoredAny>,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Slicing {
    #[serde(default, deserialize_with = "or_default")]
    rename_by_default: bool,
    #[serde(default, deserialize_with = "or_default")]
    fail_requests_greater_than_one: bool,
    #[serde(default, deserialize_with = "or_default")]
    resources: Vec<Shared>,
}

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Shared {
    name: Name,
    replicas: u32,
    rename: Option<Name>,
    devices: Option<Devices>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Imex {
    #[serde(rename = "channelIDs", deserialize_with = "or_default")]
    pub(crate) channel_ids: Vec<u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) required: bool,
}

/// A key without a value, as templates leave them, is one that is not there. So it is for Go's parsers.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A resource's name, read once the domain is known.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Name(String);

/// A text that is read as something else; what is wrong with it is said with its line.
#[derive(Debug, Clone)]
pub(crate) struct Word<T>(pub(crate) T);

/// A list of words, or the same in one text with commas.
#[derive(Debug, Clone)]
pub(crate) struct Words<T>(pub(crate) Vec<T>);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Version;

#[derive(Debug, Clone)]
pub(crate) struct Prefix(pub(crate) String);

#[derive(Debug, Clone)]
struct Devices(SharedDevices);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "v1" { Ok(Self) } else { Err(format!("unknown version: {text}, expected v1")) }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        crate::args::annotation_prefix(text).map(Self)
    }
}

impl Name {
    pub(crate) fn parse(&self, domain: &ResourceDomain) -> Result<ResourceName, String> {
        ResourceName::parse(&self.0, domain).map_err(|error| error.to_string())
    }
}

impl Slicing {
    pub(crate) fn read(&self, domain: &ResourceDomain) -> Result<TimeSlicing, String> {
        if self.resources.is_empty() {
            return Err("sharing.timeSlicing: no resources specified".to_owned());
        }
        let mut resources = Vec::new();
        for said in &self.resources {
            let name = said.name.parse(domain)?;
            if !(2..=MOST_REPLICAS).contains(&said.replicas) {
                return Err(format!("{name}: {} replicas, expected a number from 2 to {MOST_REPLICAS}", said.replicas));
            }
            let rename = said.rename.as_ref().map(|name| name.parse(domain)).transpose()?;
            if rename.is_none() && self.rename_by_default && !name.can_be_shared() {
                return Err(format!("{name}: too long a name to have .shared added; give it a rename"));
            }
            let devices = said.devices.clone().map_or(SharedDevices::All, |devices| devices.0);
            resources.push(SharedResource { name, replicas: said.replicas, rename, devices });
        }
        Ok(TimeSlicing {
            rename_by_default: self.rename_by_default,
            fail_requests_greater_than_one: self.fail_requests_greater_than_one,
            resources,
        })
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Words<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Either<T> {
            type Value = Words<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, or a list such as [envvar, cdi-cri]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.split(',').map(|word| word.trim().parse().map_err(E::custom)).collect::<Result<_, _>>().map(Words)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut words = Vec::new();
                while let Some(Word(word)) = list.next_element()? {
                    words.push(word);
                }
                if words.is_empty() {
                    return Err(de::Error::custom("an empty list, expected at least one word"));
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Devices;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("all, a count, or a list of indices and UUIDs")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                match text {
                    "all" => Ok(Devices(SharedDevices::All)),
                    _ => Err(E::custom("expected devices as all, a count, or a list of indices and UUIDs")),
                }
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Self::Value, E> {
                match usize::try_from(count) {
                    Ok(count) if count > 0 => Ok(Devices(SharedDevices::Count(count))),
                    _ => Err(E::custom("a count of devices must be 1 or more")),
                }
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Self::Value, E> {
                self.visit_u64(u64::try_from(count).unwrap_or_default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut devices = Vec::new();
                while let Some(Reference(device)) = list.next_element()? {
                    devices.push(device);
                }
                if devices.is_empty() {
                    return Err(de::Error::custom(
                        "an empty list of devices: leave devices out, which means all of them",
                    ));
                }
                Ok(Devices(SharedDevices::List(devices)))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An index may be written as a number.
struct Reference(DeviceReference);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Reference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an index (0), a slice's (0:1) or a UUID")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map(Reference).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, index: u64) -> Result<Self::Value, E> {
                self.visit_str(&index.to_string())
            }

            fn visit_i64<E: de::Error>(self, index: i64) -> Result<Self::Value, E> {
                self.visit_str(&index.to_string())
            }
        }
        deserializer.deserialize_any(Any)
    }
}
