//! Which names the kubelet takes for an extended resource.

/// `domain/name`, outside `kubernetes.io`, and still a qualified name with the `requests.` that quotas put before it.
pub(crate) fn is_extended(name: &str) -> bool {
    let Some((domain, short)) = name.split_once('/') else { return false };
    !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && is_subdomain(&format!("requests.{domain}"))
        && is_short_name(short)
}

fn is_subdomain(domain: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.len() <= 253 && domain.split('.').all(label)
}

fn is_short_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 63 && name.bytes().all(inner) && edge(name.bytes().next()) && edge(name.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::is_extended;

    #[test]
    fn names_of_slices_are_taken() {
        for name in ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/mig-1g.5gb.me", "a/B_c"] {
            assert!(is_extended(name), "{name}");
        }
    }

    #[test]
    fn names_that_kubernetes_refuses_are_refused() {
        let long = format!("nvidia.com/{}", "a".repeat(64));
        for name in [
            "",
            "gpu",
            "nvidia.com/",
            "/gpu",
            "nvidia.com/mig-1g.5gb+me",
            "nvidia.com/a/b",
            "kubernetes.io/gpu",
            "x.kubernetes.io/gpu",
            "requests.nvidia.com/gpu",
            "NVIDIA.com/gpu",
            "nvidia..com/gpu",
            "nvidia.com/-a",
            "nvidia.com/a.",
            &long,
        ] {
            assert!(!is_extended(name), "{name}");
        }
    }
}
