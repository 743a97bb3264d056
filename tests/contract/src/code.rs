//! NVML's return codes, by name.

use std::fmt;

/// What an NVML function returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($name:ident = $value:literal;)*) => {
        #[allow(missing_docs, reason = "these are NVML's names")]
        impl Code {
            $(pub const $name: Self = Self($value);)*
        }

        const NAMES: &[(Code, &str)] = &[$((Code::$name, stringify!($name))),*];
    };
}

codes! {
    SUCCESS = 0;
    UNINITIALIZED = 1;
    INVALID_ARGUMENT = 2;
    NOT_SUPPORTED = 3;
    NO_PERMISSION = 4;
    ALREADY_INITIALIZED = 5;
    NOT_FOUND = 6;
    INSUFFICIENT_SIZE = 7;
    INSUFFICIENT_POWER = 8;
    DRIVER_NOT_LOADED = 9;
    TIMEOUT = 10;
    IRQ_ISSUE = 11;
    LIBRARY_NOT_FOUND = 12;
    FUNCTION_NOT_FOUND = 13;
    CORRUPTED_INFOROM = 14;
    GPU_IS_LOST = 15;
    RESET_REQUIRED = 16;
    OPERATING_SYSTEM = 17;
    LIB_RM_VERSION_MISMATCH = 18;
    IN_USE = 19;
    MEMORY = 20;
    NO_DATA = 21;
    VGPU_ECC_NOT_SUPPORTED = 22;
    INSUFFICIENT_RESOURCES = 23;
    FREQ_NOT_SUPPORTED = 24;
    ARGUMENT_VERSION_MISMATCH = 25;
    DEPRECATED = 26;
    NOT_READY = 27;
    GPU_NOT_FOUND = 28;
    INVALID_STATE = 29;
    RESET_TYPE_NOT_SUPPORTED = 30;
    UNKNOWN = 999;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(code, _)| code == self) {
            Some((Self::SUCCESS, name)) => write!(f, "NVML_{name}"),
            Some((_, name)) => write!(f, "NVML_ERROR_{name}"),
            None => write!(f, "nvmlReturn_t {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
