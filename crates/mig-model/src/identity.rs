//! UUIDs as the driver gives them. They end up in environment variables, device lists and logs, so their characters are
//! checked once, here.

use std::fmt;

use serde::Serialize;

/// The kubelet accepts device ids of at most 63 bytes.
const LONGEST: usize = 63;

/// A text that cannot be a UUID of NVML's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a UUID of a {kind} (expected {prefix}..., at most {LONGEST} characters)")]
pub struct IdentityError {
    kind: &'static str,
    prefix: &'static str,
    text: String,
}

fn check(text: &str, kind: &'static str, prefix: &'static str) -> Result<(), IdentityError> {
    let characters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'/');
    if text.len() > prefix.len() && text.len() <= LONGEST && text.starts_with(prefix) && characters {
        return Ok(());
    }
    Err(IdentityError { kind, prefix, text: text.chars().take(LONGEST + 1).collect() })
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks what the driver gave.
            pub fn new(text: impl Into<String>) -> Result<Self, IdentityError> {
                let text = text.into();
                check(&text, $kind, $prefix)?;
                Ok(Self(text))
            }

            /// The UUID as the driver writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

uuid!(
    /// `GPU-...`: a whole GPU.
    GpuUuid, "GPU", "GPU-"
);
uuid!(
    /// `MIG-...`: a compute instance, which is what a process runs on. Drivers before R470 wrote
    /// `MIG-GPU-<uuid>/<gpu instance>/<compute instance>`.
    MigUuid, "MIG device", "MIG-"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_mig_uuid_are_taken() {
        assert!(MigUuid::new("MIG-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77").is_ok());
        assert!(MigUuid::new("MIG-GPU-b8ea3855-276c-c9cb-b366-c6fa655957c5/11/0").is_ok());
    }

    #[test]
    fn what_could_break_a_variable_or_a_list_is_refused() {
        for text in
            ["", "MIG-", "GPU-1", "MIG-a,MIG-b", "MIG-a b", "MIG-a\n", "MIG-\u{e9}", &format!("MIG-{}", "a".repeat(60))]
        {
            assert!(MigUuid::new(text).is_err(), "{text:?}");
        }
    }
}
