//! Resource names as pods ask for them: `nvidia.com/mig-1g.5gb`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::profile::Profile;

/// Kubernetes allows 63 characters after the slash and a DNS name before it.
const LONGEST_DOMAIN: usize = 253;
const LONGEST_NAME: usize = 63;
const SHARED: &str = ".shared";

/// The part before the slash; `nvidia.com` unless a node runs beside NVIDIA's own plugin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceDomain(String);

/// A text that cannot be the domain of an extended resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Not a DNS name.
    #[error("{0:?} is not a resource domain, expected a DNS name such as nvidia.com")]
    Domain(String),
    /// Kubernetes keeps these for itself.
    #[error("{0:?} is not a resource domain: Kubernetes keeps kubernetes.io and what ends in it for itself")]
    Reserved(String),
    /// Not a name of an extended resource.
    #[error(
        "{0:?} is not a resource name, expected at most {LONGEST_NAME} lower case letters, digits, - and . after the domain"
    )]
    Name(String),
    /// Another domain than the agent's.
    #[error("{0:?} has another domain than {1}, under which resources are offered here")]
    Foreign(String, String),
}

/// An extended resource: domain and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    domain: ResourceDomain,
    name: String,
}

impl Default for ResourceDomain {
    fn default() -> Self {
        Self("nvidia.com".to_owned())
    }
}

impl FromStr for ResourceDomain {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let is_label = |label: &str| {
            let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() > LONGEST_DOMAIN || !text.split('.').all(is_label) {
            return Err(ResourceError::Domain(text.chars().take(80).collect()));
        }
        if text == "kubernetes.io" || text.ends_with(".kubernetes.io") || text.starts_with("requests.") {
            return Err(ResourceError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ResourceDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl ResourceName {
    /// `<domain>/mig-<profile>`.
    pub fn mig(domain: &ResourceDomain, profile: &Profile) -> Self {
        Self { domain: domain.clone(), name: format!("mig-{}", profile.resource_suffix()) }
    }

    /// `<domain>/gpu`: whole GPUs, and every MIG device under the strategy `single`.
    pub fn gpu(domain: &ResourceDomain) -> Self {
        Self { domain: domain.clone(), name: "gpu".to_owned() }
    }

    /// A name that a person chose. Without a domain it gets ours, and so it does with NVIDIA's, which stands in every
    /// file that was written for their plugin.
    pub fn parse(text: &str, domain: &ResourceDomain) -> Result<Self, ResourceError> {
        let shown = || text.chars().take(80).collect::<String>();
        let name = match text.split_once('/') {
            None => text,
            Some((given, name)) if given == domain.0 || given == ResourceDomain::default().0 => name,
            Some(_) => return Err(ResourceError::Foreign(shown(), domain.to_string())),
        };
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
        let part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
        if !plain || name.len() > LONGEST_NAME || !name.split('.').all(part) {
            return Err(ResourceError::Name(shown()));
        }
        Ok(Self { domain: domain.clone(), name: name.to_owned() })
    }

    /// The same with `.shared`.
    pub(crate) fn shared(&self) -> Self {
        Self { domain: self.domain.clone(), name: format!("{}{SHARED}", self.name) }
    }

    /// Whether there is room for `.shared`.
    pub fn can_be_shared(&self) -> bool {
        self.name.len() + SHARED.len() <= LONGEST_NAME
    }

    /// The part after the slash.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part before the slash.
    pub fn domain(&self) -> &ResourceDomain {
        &self.domain
    }

    /// Whether a name that the kubelet mentions is one that this domain's agent may have registered.
    pub fn recognise(text: &str, domain: &ResourceDomain) -> Option<Self> {
        let name = text.strip_prefix(&domain.0)?.strip_prefix('/')?;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') && name.len() <= 63;
        let is_ours = plain && (name == "gpu" || name == "gpu.shared" || name.starts_with("mig-"));
        is_ours.then(|| Self { domain: domain.clone(), name: name.to_owned() })
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.domain, self.name))
    }
}

impl Serialize for ResourceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_dns_names() {
        for good in ["nvidia.com", "a", "mig.example-1.org"] {
            assert_eq!(good.parse::<ResourceDomain>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "Nvidia.com",
            "nvidia..com",
            "nvidia.com/",
            "-a.com",
            "a_b.com",
            "kubernetes.io",
            "x.kubernetes.io",
            &"a.".repeat(130),
        ] {
            assert!(bad.parse::<ResourceDomain>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn chosen_names_are_checked() {
        let domain: ResourceDomain = "example.com".parse().unwrap();
        let parse = |text: &str| ResourceName::parse(text, &domain).map(|name| name.to_string());
        for good in ["small", "example.com/small", "nvidia.com/small"] {
            assert_eq!(parse(good).unwrap(), "example.com/small");
        }
        for bad in ["", "Small", "a_b", "-a", "a.", "a..b", "amd.com/gpu", "a/b/c", "nvidia.com/", &"a".repeat(64)] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(!ResourceName::parse(&"a".repeat(57), &domain).unwrap().can_be_shared());
    }

    #[test]
    fn only_names_that_we_give_are_recognised() {
        let domain = ResourceDomain::default();
        let profile = "1g.10gb+me".parse().unwrap();
        let name = ResourceName::mig(&domain, &profile);
        assert_eq!(name.to_string(), "nvidia.com/mig-1g.10gb.me");
        assert_eq!(ResourceName::recognise("nvidia.com/mig-1g.10gb.me", &domain), Some(name));
        assert_eq!(ResourceName::recognise("nvidia.com/gpu", &domain), Some(ResourceName::gpu(&domain)));
        for other in
            ["nvidia.com/hostdev", "nvidia.comx/gpu", "amd.com/gpu", "nvidia.com", "nvidia.com/mig-../../x", ""]
        {
            assert_eq!(ResourceName::recognise(other, &domain), None, "{other:?}");
        }
    }
}
