//! Profile names such as `1g.5gb`, `1g.10gb+me`, `1g.24gb-me`, `4g.96gb+gfx`, `1c.3g.20gb`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name that still fits the part of a resource name after the slash (63 characters, of which `mig-` takes four).
const LONGEST: usize = 59;

/// The kind of an instance: compute slices, memory, and attributes such as media engines.
///
/// A compute instance that takes all of its GPU instance has the GPU instance's name; a smaller one puts its own
/// slices in front (`1c.3g.20gb`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile {
    slices: u8,
    gigabytes: u16,
    attributes: String,
    compute_slices: u8,
}

/// A text that is no profile name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unable to read {0:?} as a MIG profile, expected a name such as 1g.5gb, 1g.10gb+me or 1c.3g.20gb")]
pub struct ProfileError(String);

impl Profile {
    /// The name that NVIDIA's tools compute where the driver gives none (`nvmlDeviceGetGpuInstanceProfileInfo` before
    /// version 2): the memory as eighths of the GPU's, rounded up, in gigabytes of the GPU's size rounded up.
    pub fn computed(
        slices: u8,
        memory_mib: u64,
        gpu_memory_bytes: u64,
        attributes: &str,
    ) -> Result<Self, ProfileError> {
        let text = format!("{slices}g.{}gb{attributes}", nvidias_gigabytes(memory_mib, gpu_memory_bytes));
        text.parse()
    }

    /// The profile of a compute instance of `compute_slices` within a GPU instance of this profile.
    pub fn with_compute_slices(&self, compute_slices: u8) -> Result<Self, ProfileError> {
        let part = Self { compute_slices, ..self.clone() };
        if compute_slices == 0 || compute_slices > self.slices {
            return Err(ProfileError(part.to_string()));
        }
        Ok(part)
    }

    /// The profile of the GPU instance.
    #[must_use]
    pub fn gpu_instance(&self) -> Self {
        Self { compute_slices: self.slices, ..self.clone() }
    }

    /// Compute slices of the GPU instance.
    pub fn slices(&self) -> u8 {
        self.slices
    }

    /// Compute slices of the compute instance; as many as the GPU instance has, unless it is a part of it.
    pub fn compute_slices(&self) -> u8 {
        self.compute_slices
    }

    /// Memory in gigabytes, as the name has it.
    pub fn gigabytes(&self) -> u16 {
        self.gigabytes
    }

    /// What follows the size: `+me`, `-me`, `+me.all`, `+gfx` or nothing.
    pub fn attributes(&self) -> &str {
        &self.attributes
    }

    /// How far apart two names are, for lists of what was probably meant.
    pub(crate) fn distance(&self, other: &Self) -> (u8, u16, bool, u8) {
        (
            self.slices.abs_diff(other.slices),
            self.gigabytes.abs_diff(other.gigabytes),
            self.attributes != other.attributes,
            self.compute_slices.abs_diff(other.compute_slices),
        )
    }

    /// What follows `mig-` in a resource name: `+` is not allowed there and becomes `.`.
    pub fn resource_suffix(&self) -> String {
        self.to_string().replace('+', ".")
    }

    /// What follows `MIG_DEVICES_` in a variable's name: `3G_20GB`. `-me` becomes `_NO_ME`, which is what the driver
    /// calls it, since `1g.24gb+me` and `1g.24gb-me` may meet in one container.
    pub fn variable_suffix(&self) -> String {
        self.to_string().replace('-', "_no_").replace(['+', '.'], "_").to_ascii_uppercase()
    }
}

fn nvidias_gigabytes(memory_mib: u64, gpu_memory_bytes: u64) -> u64 {
    const MIB: u128 = 1 << 20;
    const GIB: u128 = 1 << 30;
    let total = u128::from(gpu_memory_bytes.max(1));
    let eighths = (u128::from(memory_mib) * MIB * 8).div_ceil(total);
    let gigabytes = total.div_ceil(GIB);
    // Halves round up, as in NVIDIA's `math.Round`.
    u64::try_from((eighths * gigabytes * 2 + 8) / 16).unwrap_or(u64::MAX)
}

impl FromStr for Profile {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, ProfileError> {
        read(text).filter(|_| text.len() <= LONGEST).ok_or_else(|| ProfileError(text.chars().take(80).collect()))
    }
}

fn read(text: &str) -> Option<Profile> {
    let (own, rest) = match text.split_once("c.") {
        Some((own, rest)) if own.bytes().all(|b| b.is_ascii_digit()) => (Some(number(own)?), rest),
        _ => (None, text),
    };
    let (slices, rest) = rest.split_once("g.")?;
    let (gigabytes, attributes) = rest.split_once("gb")?;
    let slices: u8 = number(slices)?;
    let compute_slices = own.unwrap_or(slices);
    let profile = Profile { slices, gigabytes: number(gigabytes)?, attributes: attributes.to_owned(), compute_slices };
    (slices > 0 && (1..=slices).contains(&compute_slices) && are_attributes(attributes)).then_some(profile)
}

/// A number as the driver writes it: digits only, no leading zero.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Nothing, or one or more of `+me`, `-me`, `+me.all`, `+gfx` and the like.
fn are_attributes(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match text.strip_prefix(['+', '-']) {
        None => text.is_empty(),
        Some(names) => names.split(['+', '-']).all(|name| name.split('.').all(is_word)),
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slices, gigabytes, attributes, compute_slices } = self;
        let own = if compute_slices == slices { String::new() } else { format!("{compute_slices}c.") };
        f.pad(&format!("{own}{slices}g.{gigabytes}gb{attributes}"))
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMS: [(&str, &str, &str); 9] = [
        ("1g.5gb", "1g.5gb", "1G_5GB"),
        ("3g.20gb", "3g.20gb", "3G_20GB"),
        ("1g.10gb+me", "1g.10gb.me", "1G_10GB_ME"),
        ("1g.24gb-me", "1g.24gb-me", "1G_24GB_NO_ME"),
        ("1g.24gb+me.all", "1g.24gb.me.all", "1G_24GB_ME_ALL"),
        ("4g.96gb+gfx", "4g.96gb.gfx", "4G_96GB_GFX"),
        ("1c.3g.20gb", "1c.3g.20gb", "1C_3G_20GB"),
        ("2c.4g.96gb+gfx", "2c.4g.96gb.gfx", "2C_4G_96GB_GFX"),
        ("3g.0gb", "3g.0gb", "3G_0GB"), // Thor, as NVIDIA's rule names it
    ];

    #[test]
    fn every_form_is_read_written_and_named() {
        for (text, resource, variable) in FORMS {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
            assert_eq!(profile.resource_suffix(), resource);
            assert_eq!(profile.variable_suffix(), variable);
        }
    }

    #[test]
    fn a_compute_instance_of_full_size_has_its_gpu_instances_name() {
        let profile: Profile = "3c.3g.20gb".parse().unwrap();
        assert_eq!(profile.to_string(), "3g.20gb");
        assert_eq!(profile.with_compute_slices(1).unwrap().to_string(), "1c.3g.20gb");
        assert_eq!("1c.3g.20gb".parse::<Profile>().unwrap().gpu_instance(), profile);
        assert!(profile.with_compute_slices(4).is_err());
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in [
            "",
            "3g",
            "g.5gb",
            "0g.5gb",
            "01g.5gb",
            "1g.gb",
            "1g.5GB",
            "4c.3g.20gb",
            "0c.3g.20gb",
            "1g.5gb+",
            "1g.5gb+me..all",
            "1g.5gb me",
            "1g.5gb+me,gfx",
            "-1g.5gb",
            "1g.5gb\n",
            "MIG 1g.5gb",
            "c.3g.20gb",
            "999g.5gb",
        ] {
            assert!(text.parse::<Profile>().is_err(), "{text:?}");
        }
        assert!(format!("1g.5gb+{}", "m".repeat(60)).parse::<Profile>().is_err());
    }

    #[test]
    fn the_computed_name_is_nvidias() {
        const GIB: u64 = 1 << 30;
        // (slices, MiB of the profile, bytes of the GPU) as mig-facts.md has them; totals as the driver reports them.
        for (slices, memory, total, name) in [
            (1, 4864, 40 * GIB, "1g.5gb"),
            (3, 19968, 40 * GIB, "3g.20gb"),
            (7, 40192, 40 * GIB, "7g.40gb"),
            (1, 9984, 80 * GIB, "1g.10gb"),
            (1, 16384, 150_754_820_096, "1g.18gb"),
            (1, 33280, 150_754_820_096, "1g.35gb"),
            (3, 71424, 150_754_820_096, "3g.71gb"),
            (7, 143_360, 150_754_820_096, "7g.141gb"),
        ] {
            assert_eq!(Profile::computed(slices, memory, total, "").unwrap().to_string(), name);
        }
        assert_eq!(Profile::computed(1, 4864, 40 * GIB, "+me").unwrap().to_string(), "1g.5gb+me");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_keeps_the_text(text in "\\PC{0,70}") {
            if let Ok(profile) = text.parse::<Profile>() {
                prop_assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
            }
        }

        #[test]
        fn two_profiles_never_share_a_variable(a in 0..FORMS.len(), b in 0..FORMS.len()) {
            prop_assert_eq!(a == b, FORMS[a].2 == FORMS[b].2);
        }
    }
}
