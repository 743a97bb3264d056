//! The library's functions. Nothing is checked and nothing is wrapped away: each method is one call, and its answer
//! is what the driver said.
#![allow(unsafe_code, reason = "it calls a C library")]

use std::{
    ffi::{CStr, CString, c_char},
    mem::MaybeUninit,
    path::Path,
    ptr::null_mut,
};

use nvml_wrapper_sys::bindings as sys;

use crate::{call::Call, code::Code};

/// A GPU or a MIG device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device(sys::nvmlDevice_t);

/// A GPU instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuInstance(sys::nvmlGpuInstance_t);

/// A compute instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeInstance(sys::nvmlComputeInstance_t);

/// A set of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventSet(sys::nvmlEventSet_t);

impl Device {
    /// No device.
    pub const NULL: Self = Self(null_mut());
}

/// The `version` of a structure: its size and its version.
pub const fn version_of<T>(version: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the largest has some 200 bytes")]
    let size = size_of::<T>() as u32;
    size | version << 24
}

/// `version` of the memory information's second version.
pub const MEMORY_V2: u32 = version_of::<sys::nvmlMemory_v2_t>(2);
/// `version` of the extended PCI information.
pub const PCI_EXT_V1: u32 = version_of::<sys::nvmlPciInfoExt_t>(1);
/// `version` of a GPU instance profile's second version.
pub const GPU_PROFILE_V2: u32 = version_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>(2);
const GPU_PROFILE_V3: u32 = version_of::<sys::nvmlGpuInstanceProfileInfo_v3_t>(3);
const COMPUTE_PROFILE_V2: u32 = version_of::<sys::nvmlComputeInstanceProfileInfo_v2_t>(2);
const COMPUTE_PROFILE_V3: u32 = version_of::<sys::nvmlComputeInstanceProfileInfo_v3_t>(3);

/// More than any list here is long.
const ROOM: u32 = 128;

/// A library that was loaded, and maybe initialized.
pub struct Nvml(sys::NvmlLib);

fn zeroed<T: Copy>() -> T {
    // SAFETY: only instantiated with NVML's structures and integers: plain numbers, characters and pointers, for all
    // of which zero bytes are a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn text(characters: &[c_char]) -> String {
    let bytes = characters.iter().map(|character| character.to_ne_bytes()[0]);
    String::from_utf8_lossy(&bytes.take_while(|byte| *byte != 0).collect::<Vec<_>>()).into_owned()
}

/// Calls a function, unless the library lacks it: the code.
macro_rules! code {
    ($nvml:expr, $function:ident($($argument:expr),* $(,)?)) => {
        $nvml.0.$function.as_ref().ok().map(|function| {
            // SAFETY: the signature is that of NVIDIA's header (tests/abi compares the structures). Pointers are NULL
            // or to live variables of the caller, which the driver fills before it returns; handles are the driver's
            // own or NULL, and a driver that is given one that has expired must say so itself.
            Code(unsafe { function($($argument),*) })
        })
    };
}

/// Calls a function whose last argument is filled.
macro_rules! get {
    ($nvml:expr, $function:ident($($argument:expr),* ; $start:expr)) => {{
        let mut value = $start;
        let code = code!($nvml, $function($($argument,)* &raw mut value));
        Call::new(stringify!($function), code, value)
    }};
}

/// Calls a function that fills a text of this many bytes.
macro_rules! get_text {
    ($nvml:expr, $size:expr, $function:ident($($argument:expr),*)) => {{
        let mut buffer = [0; 256];
        let code = code!($nvml, $function($($argument,)* buffer.as_mut_ptr(), u32::min($size, 256)));
        Call::new(stringify!($function), code, text(&buffer)).on(format_args!("{} bytes", $size))
    }};
}

/// Calls a function that fills a list and its length.
macro_rules! get_list {
    ($nvml:expr, $function:ident($($argument:expr),*)) => {{
        let mut list = [zeroed(); ROOM as usize];
        // The header has it filled only; a driver that reads it first finds how much room there is.
        let mut count: std::ffi::c_uint = ROOM;
        let code = code!($nvml, $function($($argument,)* list.as_mut_ptr(), &raw mut count));
        let count = usize::try_from(count.min(ROOM)).unwrap_or(0);
        Call::new(stringify!($function), code, list.into_iter().take(count).collect::<Vec<_>>())
    }};
}

/// A profile with what later versions add.
macro_rules! versioned {
    ($info:expr, $profile:ident) => {
        Versioned { profile: $profile!($info), version: $info.version, name: text(&$info.name) }
    };
}

// After the macros, which they use.
mod compute_instance;
mod device;
mod event;
mod gpu_instance;
mod mig;
mod null;
mod values;

pub use values::{
    Attributes, ComputeInstanceInfo, ComputeProfile, Event, GpuInstanceInfo, GpuProfile, Memory, Pci, Placement,
    Process, Versioned,
};

/// Functions that fill one number.
macro_rules! numbers {
    ($($method:ident: $function:ident -> $kind:ty;)*) => {
        impl Nvml {
            $(
                #[doc = concat!("`", stringify!($function), "`")]
                pub fn $method(&self, device: Device) -> Call<$kind> {
                    get!(self, $function(device.0; 0))
                }
            )*
        }
    };
}

numbers! {
    index: nvmlDeviceGetIndex -> u32;
    minor: nvmlDeviceGetMinorNumber -> u32;
    architecture: nvmlDeviceGetArchitecture -> u32;
    brand: nvmlDeviceGetBrand -> u32;
    board_id: nvmlDeviceGetBoardId -> u32;
    cores: nvmlDeviceGetNumGpuCores -> u32;
    numa_node: nvmlDeviceGetNumaNodeId -> u32;
    supported_events: nvmlDeviceGetSupportedEventTypes -> u64;
    max_mig_devices: nvmlDeviceGetMaxMigDeviceCount -> u32;
    is_mig_device: nvmlDeviceIsMigDeviceHandle -> u32;
    gpu_instance_id: nvmlDeviceGetGpuInstanceId -> u32;
    compute_instance_id: nvmlDeviceGetComputeInstanceId -> u32;
}

/// The library as a whole.
impl Nvml {
    /// Loads a library.
    pub fn load(path: &Path) -> Result<Self, String> {
        // SAFETY: the library under test. Loading one that is no NVML may do anything; whoever names it wants that.
        unsafe { sys::NvmlLib::new(path) }.map(Self).map_err(|error| error.to_string())
    }

    /// `nvmlInit_v2`
    pub fn init(&self) -> Call<()> {
        Call::new("nvmlInit_v2", code!(self, nvmlInit_v2()), ())
    }

    /// `nvmlInitWithFlags`
    pub fn init_with_flags(&self, flags: u32) -> Call<()> {
        Call::new("nvmlInitWithFlags", code!(self, nvmlInitWithFlags(flags)), ())
    }

    /// `nvmlShutdown`
    pub fn shutdown(&self) -> Call<()> {
        Call::new("nvmlShutdown", code!(self, nvmlShutdown()), ())
    }

    /// `nvmlErrorString`
    pub fn error_string(&self, code: Code) -> Option<String> {
        let function = self.0.nvmlErrorString.as_ref().ok()?;
        // SAFETY: takes any number.
        let text = unsafe { function(code.0) };
        // SAFETY: a text of the library's own, which stays as long as the library.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// `nvmlSystemGetDriverVersion`
    pub fn driver_version(&self, size: u32) -> Call<String> {
        get_text!(self, size, nvmlSystemGetDriverVersion())
    }

    /// `nvmlSystemGetNVMLVersion`
    pub fn nvml_version(&self, size: u32) -> Call<String> {
        get_text!(self, size, nvmlSystemGetNVMLVersion())
    }

    /// `nvmlSystemGetCudaDriverVersion_v2`
    pub fn cuda_version(&self) -> Call<i32> {
        get!(self, nvmlSystemGetCudaDriverVersion_v2(; 0))
    }

    /// `nvmlDeviceGetCount_v2`
    pub fn count(&self) -> Call<u32> {
        get!(self, nvmlDeviceGetCount_v2(; 0))
    }

    /// `nvmlDeviceGetHandleByIndex_v2`
    pub fn by_index(&self, index: u32) -> Call<Device> {
        get!(self, nvmlDeviceGetHandleByIndex_v2(index; null_mut())).map(Device).on(format_args!("index {index}"))
    }

    /// `nvmlDeviceGetHandleByUUID`
    pub fn by_uuid(&self, uuid: &str) -> Call<Device> {
        let c = CString::new(uuid).unwrap_or_default();
        get!(self, nvmlDeviceGetHandleByUUID(c.as_ptr(); null_mut())).map(Device).on(format_args!("{uuid:?}"))
    }

    /// `nvmlDeviceGetHandleByPciBusId_v2`
    pub fn by_pci(&self, bus: &str) -> Call<Device> {
        let c = CString::new(bus).unwrap_or_default();
        get!(self, nvmlDeviceGetHandleByPciBusId_v2(c.as_ptr(); null_mut())).map(Device).on(format_args!("{bus:?}"))
    }
}
