//! NVML's return codes.

/// What every NVML function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        #[allow(missing_docs, reason = "these are NVML's names")]
        impl Code {
            $(pub const $name: Self = Self($value);)*
        }

        /// Name (without `NVML_` and `ERROR_`), number and the driver's text, as a C string, of every code.
        pub const CODES: &[(&str, Code, &core::ffi::CStr)] = &[$((stringify!($name), Code::$name, $text)),*];
    };
}

// The texts are those that driver 580.159.04 answers.
codes! {
    SUCCESS = 0, c"Success";
    UNINITIALIZED = 1, c"Uninitialized";
    INVALID_ARGUMENT = 2, c"Invalid Argument";
    NOT_SUPPORTED = 3, c"Not Supported";
    NO_PERMISSION = 4, c"Insufficient Permissions";
    ALREADY_INITIALIZED = 5, c"Already Initialized";
    NOT_FOUND = 6, c"Not Found";
    INSUFFICIENT_SIZE = 7, c"Insufficient Size";
    INSUFFICIENT_POWER = 8, c"Insufficient External Power";
    DRIVER_NOT_LOADED = 9, c"Driver Not Loaded";
    TIMEOUT = 10, c"Timeout";
    IRQ_ISSUE = 11, c"Interrupt Request Issue";
    LIBRARY_NOT_FOUND = 12, c"NVML Shared Library Not Found";
    FUNCTION_NOT_FOUND = 13, c"Function Not Found";
    CORRUPTED_INFOROM = 14, c"Corrupted infoROM";
    GPU_IS_LOST = 15, c"GPU is lost";
    RESET_REQUIRED = 16, c"GPU requires reset";
    OPERATING_SYSTEM = 17, c"GPU access blocked by the operating system";
    LIB_RM_VERSION_MISMATCH = 18, c"Driver/library version mismatch";
    IN_USE = 19, c"In use by another client";
    MEMORY = 20, c"Insufficient Memory";
    NO_DATA = 21, c"No data";
    VGPU_ECC_NOT_SUPPORTED = 22, c"vGPU ECC not supported";
    INSUFFICIENT_RESOURCES = 23, c"Insufficient Resources";
    FREQ_NOT_SUPPORTED = 24, c"Invalid Frequency";
    ARGUMENT_VERSION_MISMATCH = 25, c"Argument version mismatch";
    DEPRECATED = 26, c"Requested functionality has been deprecated";
    NOT_READY = 27, c"System is not in ready state";
    GPU_NOT_FOUND = 28, c"No supported GPUs were found";
    INVALID_STATE = 29, c"Resource not in correct state to perform requested operation";
    RESET_TYPE_NOT_SUPPORTED = 30, c"Reset type is not supported for given device";
    UNKNOWN = 999, c"Unknown Error";
}

impl Code {
    /// `NOT_SUPPORTED`, `NVML_ERROR_NOT_SUPPORTED` and the like.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("NVML_").unwrap_or(name);
        let name = name.strip_prefix("ERROR_").unwrap_or(name);
        CODES.iter().find(|(known, _, _)| *known == name).map(|(_, code, _)| *code)
    }

    /// The name that [`Code::named`] takes.
    pub fn name(self) -> &'static str {
        CODES.iter().find(|(_, code, _)| *code == self).map_or("UNKNOWN", |(name, _, _)| name)
    }

    /// What `nvmlErrorString` says.
    pub(crate) fn text(self) -> &'static core::ffi::CStr {
        CODES.iter().find(|(_, code, _)| *code == self).map_or(c"Unknown Error", |(_, _, text)| text)
    }
}

/// What NVML functions do inside: nothing to say, or the code to return.
pub(crate) type Answer<T = ()> = Result<T, Code>;
