//! The library's functions. Nothing is checked and nothing is wrapped away: each method is one call, and its answer
//! is what the driver said.
#![allow(unsafe_code, reason = "it calls a C library")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint},
    mem::MaybeUninit,
    path::Path,
    ptr::{null, null_mut},
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

/// Where an instance lies: memory slices for a GPU instance, compute slices for a compute instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The first slice.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// The first version's fields of a GPU instance profile; later versions have them all but the last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct GpuProfile {
    pub id: u32,
    pub slices: u32,
    pub instances: u32,
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
    pub memory_mb: u64,
}

/// A compute instance profile.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct ComputeProfile {
    pub id: u32,
    pub slices: u32,
    pub instances: u32,
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
}

/// What later versions of a profile's structure add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The first version's fields.
    pub profile: T,
    /// What the driver left in `version`.
    pub version: u32,
    /// The profile's name.
    pub name: String,
}

/// What a GPU instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct GpuInstanceInfo {
    pub device: Device,
    pub id: u32,
    pub profile: u32,
    pub placement: Placement,
}

/// What a compute instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct ComputeInstanceInfo {
    pub device: Device,
    pub gpu_instance: GpuInstance,
    pub id: u32,
    pub profile: u32,
    pub placement: Placement,
}

/// What a MIG device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Attributes {
    pub multiprocessors: u32,
    pub copy: u32,
    pub decoder: u32,
    pub encoder: u32,
    pub jpeg: u32,
    pub ofa: u32,
    pub gpu_slices: u32,
    pub compute_slices: u32,
    pub memory_mb: u64,
}

/// Where a GPU is on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Pci {
    pub domain: u32,
    pub bus: u32,
    pub device: u32,
    pub device_id: u32,
    pub subsystem_id: u32,
    pub bus_id: String,
}

/// A GPU's or MIG device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Memory {
    pub version: u32,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Event {
    pub device: Device,
    pub kind: u64,
    pub data: u64,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// A process on a GPU or MIG device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "these are NVML's")]
pub struct Process {
    pub pid: u32,
    pub gpu_instance: u32,
    pub compute_instance: u32,
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
const ROOM: usize = 128;

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
        let mut list = [zeroed(); ROOM];
        let mut count: c_uint = 0;
        let code = code!($nvml, $function($($argument,)* list.as_mut_ptr(), &raw mut count));
        let count = usize::try_from(count).unwrap_or(ROOM).min(ROOM);
        Call::new(stringify!($function), code, list.into_iter().take(count).collect::<Vec<_>>())
    }};
}

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
        unsafe { sys::NvmlLib::new(path) }.map(Self).map_err(|error| format!("{}: {error}", path.display()))
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

/// Devices.
impl Nvml {
    /// `nvmlDeviceGetName`
    pub fn name(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetName(device.0))
    }

    /// `nvmlDeviceGetUUID`
    pub fn uuid(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetUUID(device.0))
    }

    /// `nvmlDeviceGetVbiosVersion`
    pub fn vbios(&self, device: Device, size: u32) -> Call<String> {
        get_text!(self, size, nvmlDeviceGetVbiosVersion(device.0))
    }

    /// `nvmlDeviceGetGspFirmwareVersion`
    pub fn gsp_version(&self, device: Device) -> Call<String> {
        let mut buffer = [0; 256];
        let code = code!(self, nvmlDeviceGetGspFirmwareVersion(device.0, buffer.as_mut_ptr()));
        Call::new("nvmlDeviceGetGspFirmwareVersion", code, text(&buffer))
    }

    /// `nvmlDeviceGetGspFirmwareMode`: enabled, and by default.
    pub fn gsp_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut enabled, mut default) = (0, 0);
        let code = code!(self, nvmlDeviceGetGspFirmwareMode(device.0, &raw mut enabled, &raw mut default));
        Call::new("nvmlDeviceGetGspFirmwareMode", code, (enabled, default))
    }

    /// `nvmlDeviceGetEccMode`: current and pending.
    pub fn ecc_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut current, mut pending) = (0, 0);
        let code = code!(self, nvmlDeviceGetEccMode(device.0, &raw mut current, &raw mut pending));
        Call::new("nvmlDeviceGetEccMode", code, (current, pending))
    }

    /// `nvmlDeviceGetPersistenceMode`
    pub fn persistence_mode(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetPersistenceMode(device.0; 0))
    }

    /// `nvmlDeviceGetComputeMode`
    pub fn compute_mode(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetComputeMode(device.0; 0))
    }

    /// `nvmlDeviceGetPowerUsage`, in milliwatts.
    pub fn power(&self, device: Device) -> Call<u32> {
        get!(self, nvmlDeviceGetPowerUsage(device.0; 0))
    }

    /// `nvmlDeviceGetCudaComputeCapability`
    pub fn compute_capability(&self, device: Device) -> Call<(i32, i32)> {
        let (mut major, mut minor): (c_int, c_int) = (0, 0);
        let code = code!(self, nvmlDeviceGetCudaComputeCapability(device.0, &raw mut major, &raw mut minor));
        Call::new("nvmlDeviceGetCudaComputeCapability", code, (major, minor))
    }

    /// `nvmlDeviceGetPciInfo_v3`, and the short form of the address that is in it.
    pub fn pci(&self, device: Device) -> Call<(Pci, String)> {
        let info = get!(self, nvmlDeviceGetPciInfo_v3(device.0; zeroed::<sys::nvmlPciInfo_t>()));
        info.map(|info| {
            let pci = Pci {
                domain: info.domain,
                bus: info.bus,
                device: info.device,
                device_id: info.pciDeviceId,
                subsystem_id: info.pciSubSystemId,
                bus_id: text(&info.busId),
            };
            (pci, text(&info.busIdLegacy))
        })
    }

    /// `nvmlDeviceGetPciInfoExt`
    pub fn pci_ext(&self, device: Device, version: u32) -> Call<Pci> {
        let start = sys::nvmlPciInfoExt_t { version, ..zeroed() };
        get!(self, nvmlDeviceGetPciInfoExt(device.0; start)).on(format_args!("version {version:#x}")).map(|info| Pci {
            domain: info.domain,
            bus: info.bus,
            device: info.device,
            device_id: info.pciDeviceId,
            subsystem_id: info.pciSubSystemId,
            bus_id: text(&info.busId),
        })
    }

    /// `nvmlDeviceGetMemoryInfo`, whose first version knows nothing of what is reserved.
    pub fn memory(&self, device: Device) -> Call<Memory> {
        let info = get!(self, nvmlDeviceGetMemoryInfo(device.0; zeroed::<sys::nvmlMemory_t>()));
        info.map(|info| Memory { version: 0, total: info.total, reserved: 0, free: info.free, used: info.used })
    }

    /// `nvmlDeviceGetMemoryInfo_v2`
    pub fn memory_v2(&self, device: Device, version: u32) -> Call<Memory> {
        let start = sys::nvmlMemory_v2_t { version, ..zeroed() };
        let info = get!(self, nvmlDeviceGetMemoryInfo_v2(device.0; start)).on(format_args!("version {version:#x}"));
        info.map(|info| Memory {
            version: info.version,
            total: info.total,
            reserved: info.reserved,
            free: info.free,
            used: info.used,
        })
    }

    /// `nvmlDeviceGetComputeRunningProcesses_v3`, with room enough.
    pub fn processes(&self, device: Device) -> Call<Vec<Process>> {
        let mut list = [zeroed::<sys::nvmlProcessInfo_t>(); 1024];
        let mut count: c_uint = 1024;
        let code = code!(self, nvmlDeviceGetComputeRunningProcesses_v3(device.0, &raw mut count, list.as_mut_ptr()));
        let count = usize::try_from(count).unwrap_or(list.len());
        let processes = list.iter().take(count).map(|info| Process {
            pid: info.pid,
            gpu_instance: info.gpuInstanceId,
            compute_instance: info.computeInstanceId,
        });
        Call::new("nvmlDeviceGetComputeRunningProcesses_v3", code, processes.collect())
    }

    /// `nvmlDeviceGetComputeRunningProcesses_v3`, with no room at all: how much it would take.
    pub fn processes_without_room(&self, device: Device) -> Call<u32> {
        let mut count: c_uint = 0;
        let code = code!(self, nvmlDeviceGetComputeRunningProcesses_v3(device.0, &raw mut count, null_mut()));
        Call::new("nvmlDeviceGetComputeRunningProcesses_v3", code, count).on("no room")
    }
}

/// MIG mode and MIG devices.
impl Nvml {
    /// `nvmlDeviceGetMigMode`: current and pending.
    pub fn mig_mode(&self, device: Device) -> Call<(u32, u32)> {
        let (mut current, mut pending) = (0, 0);
        let code = code!(self, nvmlDeviceGetMigMode(device.0, &raw mut current, &raw mut pending));
        Call::new("nvmlDeviceGetMigMode", code, (current, pending))
    }

    /// `nvmlDeviceSetMigMode`: the activation's status.
    pub fn set_mig_mode(&self, device: Device, mode: u32) -> Call<Code> {
        get!(self, nvmlDeviceSetMigMode(device.0, mode; 0)).map(Code).on(format_args!("mode {mode}"))
    }

    /// `nvmlDeviceGetMigDeviceHandleByIndex`
    pub fn mig_device(&self, device: Device, index: u32) -> Call<Device> {
        let found = get!(self, nvmlDeviceGetMigDeviceHandleByIndex(device.0, index; null_mut()));
        found.map(Device).on(format_args!("index {index}"))
    }

    /// `nvmlDeviceGetDeviceHandleFromMigDeviceHandle`
    pub fn parent(&self, device: Device) -> Call<Device> {
        get!(self, nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device.0; null_mut())).map(Device)
    }

    /// `nvmlDeviceGetAttributes_v2`
    pub fn attributes(&self, device: Device) -> Call<Attributes> {
        let start = zeroed::<sys::nvmlDeviceAttributes_t>();
        get!(self, nvmlDeviceGetAttributes_v2(device.0; start)).map(|known| Attributes {
            multiprocessors: known.multiprocessorCount,
            copy: known.sharedCopyEngineCount,
            decoder: known.sharedDecoderCount,
            encoder: known.sharedEncoderCount,
            jpeg: known.sharedJpegCount,
            ofa: known.sharedOfaCount,
            gpu_slices: known.gpuInstanceSliceCount,
            compute_slices: known.computeInstanceSliceCount,
            memory_mb: known.memorySizeMB,
        })
    }
}

macro_rules! gpu_profile {
    ($info:expr) => {
        GpuProfile {
            id: $info.id,
            slices: $info.sliceCount,
            instances: $info.instanceCount,
            multiprocessors: $info.multiprocessorCount,
            copy: $info.copyEngineCount,
            decoder: $info.decoderCount,
            encoder: $info.encoderCount,
            jpeg: $info.jpegCount,
            ofa: $info.ofaCount,
            memory_mb: $info.memorySizeMB,
        }
    };
}

macro_rules! compute_profile {
    ($info:expr) => {
        ComputeProfile {
            id: $info.id,
            slices: $info.sliceCount,
            instances: $info.instanceCount,
            multiprocessors: $info.multiprocessorCount,
            copy: $info.sharedCopyEngineCount,
            decoder: $info.sharedDecoderCount,
            encoder: $info.sharedEncoderCount,
            jpeg: $info.sharedJpegCount,
            ofa: $info.sharedOfaCount,
        }
    };
}

macro_rules! versioned {
    ($info:expr, $profile:ident) => {
        Versioned { profile: $profile!($info), version: $info.version, name: text(&$info.name) }
    };
}

/// GPU instances.
impl Nvml {
    /// `nvmlDeviceGetGpuInstanceProfileInfo`, and whether peer-to-peer is supported.
    pub fn gpu_profile(&self, device: Device, index: u32) -> Call<(GpuProfile, u32)> {
        let start = zeroed::<sys::nvmlGpuInstanceProfileInfo_t>();
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfo(device.0, index; start));
        info.map(|info| (gpu_profile!(info), info.isP2pSupported)).on(format_args!("profile {index}"))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoV` with its second version, and whether peer-to-peer is supported.
    pub fn gpu_profile_v2(&self, device: Device, index: u32, version: u32) -> Call<(Versioned<GpuProfile>, u32)> {
        let start = sys::nvmlGpuInstanceProfileInfo_v2_t { version, ..zeroed() };
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index; start));
        let info = info.on(format_args!("profile {index}, version {version:#x}"));
        info.map(|info| (versioned!(info, gpu_profile), info.isP2pSupported))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoV` with its third version.
    pub fn gpu_profile_v3(&self, device: Device, index: u32) -> Call<Versioned<GpuProfile>> {
        let mut info = sys::nvmlGpuInstanceProfileInfo_v3_t { version: GPU_PROFILE_V3, ..zeroed() };
        let code = code!(self, nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index, (&raw mut info).cast()));
        Call::new("nvmlDeviceGetGpuInstanceProfileInfoV", code, versioned!(info, gpu_profile))
            .on(format_args!("profile {index}, version {GPU_PROFILE_V3:#x}"))
    }

    /// `nvmlDeviceGetGpuInstanceProfileInfoByIdV` with its second version.
    pub fn gpu_profile_by_id(&self, device: Device, id: u32) -> Call<Versioned<GpuProfile>> {
        let start = sys::nvmlGpuInstanceProfileInfo_v2_t { version: GPU_PROFILE_V2, ..zeroed() };
        let info = get!(self, nvmlDeviceGetGpuInstanceProfileInfoByIdV(device.0, id; start));
        info.map(|info| versioned!(info, gpu_profile)).on(format_args!("profile id {id}"))
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements_v2` without a list: how long it is.
    pub fn placement_count(&self, device: Device, profile: u32) -> Call<u32> {
        let count = get!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, profile, null_mut(); 0));
        count.on(format_args!("profile id {profile} and no list"))
    }

    /// `nvmlDeviceGetGpuInstancePossiblePlacements_v2`
    pub fn placements(&self, device: Device, profile: u32) -> Call<Vec<Placement>> {
        let list: Call<Vec<sys::nvmlGpuInstancePlacement_t>> =
            get_list!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, profile));
        list.on(format_args!("profile id {profile}"))
            .map(|list| list.iter().map(|place| Placement { start: place.start, size: place.size }).collect())
    }

    /// `nvmlDeviceGetGpuInstanceRemainingCapacity`
    pub fn remaining(&self, device: Device, profile: u32) -> Call<u32> {
        get!(self, nvmlDeviceGetGpuInstanceRemainingCapacity(device.0, profile; 0))
            .on(format_args!("profile id {profile}"))
    }

    /// `nvmlDeviceGetGpuInstances`
    pub fn gpu_instances(&self, device: Device, profile: u32) -> Call<Vec<GpuInstance>> {
        let list: Call<Vec<sys::nvmlGpuInstance_t>> = {
            let mut list: [sys::nvmlGpuInstance_t; ROOM] = [null_mut(); ROOM];
            let mut count: c_uint = 0;
            let code = code!(self, nvmlDeviceGetGpuInstances(device.0, profile, list.as_mut_ptr(), &raw mut count));
            let count = usize::try_from(count).unwrap_or(ROOM).min(ROOM);
            Call::new("nvmlDeviceGetGpuInstances", code, list.into_iter().take(count).collect())
        };
        list.on(format_args!("profile id {profile}")).map(|list| list.into_iter().map(GpuInstance).collect())
    }

    /// `nvmlDeviceGetGpuInstanceById`
    pub fn gpu_instance(&self, device: Device, id: u32) -> Call<GpuInstance> {
        get!(self, nvmlDeviceGetGpuInstanceById(device.0, id; null_mut())).map(GpuInstance).on(format_args!("id {id}"))
    }

    /// `nvmlGpuInstanceGetInfo`
    pub fn gpu_instance_info(&self, instance: GpuInstance) -> Call<GpuInstanceInfo> {
        let start = zeroed::<sys::nvmlGpuInstanceInfo_t>();
        get!(self, nvmlGpuInstanceGetInfo(instance.0; start)).map(|info| GpuInstanceInfo {
            device: Device(info.device),
            id: info.id,
            profile: info.profileId,
            placement: Placement { start: info.placement.start, size: info.placement.size },
        })
    }

    /// `nvmlDeviceCreateGpuInstance`
    pub fn create_gpu_instance(&self, device: Device, profile: u32) -> Call<GpuInstance> {
        let made = get!(self, nvmlDeviceCreateGpuInstance(device.0, profile; null_mut()));
        made.map(GpuInstance).on(format_args!("profile id {profile}"))
    }

    /// `nvmlDeviceCreateGpuInstanceWithPlacement`
    pub fn create_gpu_instance_at(&self, device: Device, profile: u32, place: Placement) -> Call<GpuInstance> {
        let place = sys::nvmlGpuInstancePlacement_t { start: place.start, size: place.size };
        let made =
            get!(self, nvmlDeviceCreateGpuInstanceWithPlacement(device.0, profile, &raw const place; null_mut()));
        made.map(GpuInstance).on(format_args!("profile id {profile} at {}:{}", place.start, place.size))
    }

    /// `nvmlGpuInstanceDestroy`
    pub fn destroy_gpu_instance(&self, instance: GpuInstance) -> Call<()> {
        Call::new("nvmlGpuInstanceDestroy", code!(self, nvmlGpuInstanceDestroy(instance.0)), ())
    }
}

/// Compute instances.
impl Nvml {
    /// `nvmlGpuInstanceGetComputeInstanceProfileInfo`
    pub fn compute_profile(&self, instance: GpuInstance, index: u32) -> Call<ComputeProfile> {
        let start = zeroed::<sys::nvmlComputeInstanceProfileInfo_t>();
        let info = get!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo(instance.0, index, 0; start));
        info.map(|info| compute_profile!(info)).on(format_args!("compute profile {index}"))
    }

    /// `nvmlGpuInstanceGetComputeInstanceProfileInfoV` with its second version.
    pub fn compute_profile_v2(&self, instance: GpuInstance, index: u32) -> Call<Versioned<ComputeProfile>> {
        let start = sys::nvmlComputeInstanceProfileInfo_v2_t { version: COMPUTE_PROFILE_V2, ..zeroed() };
        let info = get!(self, nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance.0, index, 0; start));
        info.map(|info| versioned!(info, compute_profile)).on(format_args!("compute profile {index}, version 2"))
    }

    /// `nvmlGpuInstanceGetComputeInstanceProfileInfoV` with its third version.
    pub fn compute_profile_v3(&self, instance: GpuInstance, index: u32) -> Call<Versioned<ComputeProfile>> {
        let mut info = sys::nvmlComputeInstanceProfileInfo_v3_t { version: COMPUTE_PROFILE_V3, ..zeroed() };
        let code =
            code!(self, nvmlGpuInstanceGetComputeInstanceProfileInfoV(instance.0, index, 0, (&raw mut info).cast()));
        Call::new("nvmlGpuInstanceGetComputeInstanceProfileInfoV", code, versioned!(info, compute_profile))
            .on(format_args!("compute profile {index}, version 3"))
    }

    /// `nvmlGpuInstanceGetComputeInstancePossiblePlacements`
    pub fn compute_placements(&self, instance: GpuInstance, profile: u32) -> Call<Vec<Placement>> {
        let list: Call<Vec<sys::nvmlComputeInstancePlacement_t>> =
            get_list!(self, nvmlGpuInstanceGetComputeInstancePossiblePlacements(instance.0, profile));
        list.on(format_args!("compute profile id {profile}"))
            .map(|list| list.iter().map(|place| Placement { start: place.start, size: place.size }).collect())
    }

    /// `nvmlGpuInstanceGetComputeInstanceRemainingCapacity`
    pub fn compute_remaining(&self, instance: GpuInstance, profile: u32) -> Call<u32> {
        get!(self, nvmlGpuInstanceGetComputeInstanceRemainingCapacity(instance.0, profile; 0))
            .on(format_args!("compute profile id {profile}"))
    }

    /// `nvmlGpuInstanceGetComputeInstances`
    pub fn compute_instances(&self, instance: GpuInstance, profile: u32) -> Call<Vec<ComputeInstance>> {
        let mut list: [sys::nvmlComputeInstance_t; ROOM] = [null_mut(); ROOM];
        let mut count: c_uint = 0;
        let code =
            code!(self, nvmlGpuInstanceGetComputeInstances(instance.0, profile, list.as_mut_ptr(), &raw mut count));
        let count = usize::try_from(count).unwrap_or(ROOM).min(ROOM);
        let list = list.into_iter().take(count).map(ComputeInstance).collect();
        Call::new("nvmlGpuInstanceGetComputeInstances", code, list).on(format_args!("compute profile id {profile}"))
    }

    /// `nvmlGpuInstanceGetComputeInstanceById`
    pub fn compute_instance(&self, instance: GpuInstance, id: u32) -> Call<ComputeInstance> {
        let found = get!(self, nvmlGpuInstanceGetComputeInstanceById(instance.0, id; null_mut()));
        found.map(ComputeInstance).on(format_args!("id {id}"))
    }

    /// `nvmlComputeInstanceGetInfo_v2`
    pub fn compute_instance_info(&self, compute: ComputeInstance) -> Call<ComputeInstanceInfo> {
        let start = zeroed::<sys::nvmlComputeInstanceInfo_t>();
        get!(self, nvmlComputeInstanceGetInfo_v2(compute.0; start)).map(|info| ComputeInstanceInfo {
            device: Device(info.device),
            gpu_instance: GpuInstance(info.gpuInstance),
            id: info.id,
            profile: info.profileId,
            placement: Placement { start: info.placement.start, size: info.placement.size },
        })
    }

    /// `nvmlGpuInstanceCreateComputeInstance`
    pub fn create_compute_instance(&self, instance: GpuInstance, profile: u32) -> Call<ComputeInstance> {
        let made = get!(self, nvmlGpuInstanceCreateComputeInstance(instance.0, profile; null_mut()));
        made.map(ComputeInstance).on(format_args!("compute profile id {profile}"))
    }

    /// `nvmlGpuInstanceCreateComputeInstanceWithPlacement`
    pub fn create_compute_instance_at(
        &self,
        instance: GpuInstance,
        profile: u32,
        place: Placement,
    ) -> Call<ComputeInstance> {
        let at = sys::nvmlComputeInstancePlacement_t { start: place.start, size: place.size };
        let made = get!(self, nvmlGpuInstanceCreateComputeInstanceWithPlacement(instance.0, profile, &raw const at; null_mut()));
        made.map(ComputeInstance).on(format_args!("compute profile id {profile} at {}:{}", place.start, place.size))
    }

    /// `nvmlComputeInstanceDestroy`
    pub fn destroy_compute_instance(&self, compute: ComputeInstance) -> Call<()> {
        Call::new("nvmlComputeInstanceDestroy", code!(self, nvmlComputeInstanceDestroy(compute.0)), ())
    }
}

/// Events.
impl Nvml {
    /// `nvmlEventSetCreate`
    pub fn create_event_set(&self) -> Call<EventSet> {
        get!(self, nvmlEventSetCreate(; null_mut())).map(EventSet)
    }

    /// `nvmlDeviceRegisterEvents`
    pub fn register_events(&self, device: Device, kinds: u64, set: EventSet) -> Call<()> {
        Call::new("nvmlDeviceRegisterEvents", code!(self, nvmlDeviceRegisterEvents(device.0, kinds, set.0)), ())
            .on(format_args!("event types {kinds:#x}"))
    }

    /// `nvmlEventSetWait_v2`
    pub fn wait(&self, set: EventSet, milliseconds: u32) -> Call<Event> {
        let mut data = zeroed::<sys::nvmlEventData_t>();
        let code = code!(self, nvmlEventSetWait_v2(set.0, &raw mut data, milliseconds));
        let event = Event {
            device: Device(data.device),
            kind: data.eventType,
            data: data.eventData,
            gpu_instance: data.gpuInstanceId,
            compute_instance: data.computeInstanceId,
        };
        Call::new("nvmlEventSetWait_v2", code, event)
    }

    /// `nvmlEventSetFree`
    pub fn free_event_set(&self, set: EventSet) -> Call<()> {
        Call::new("nvmlEventSetFree", code!(self, nvmlEventSetFree(set.0)), ())
    }
}

/// Calls with NULL where something should be filled, one by one.
macro_rules! nulls {
    ($nvml:ident; $($function:ident($($argument:expr),* $(,)?);)*) => {
        vec![$(Call::new(stringify!($function), code!($nvml, $function($($argument),*)), ())),*]
    };
}

impl Nvml {
    /// Functions of no device, given NULL for what they fill.
    pub fn nulls(&self) -> Vec<Call<()>> {
        nulls! { self;
            nvmlSystemGetDriverVersion(null_mut(), 80);
            nvmlSystemGetNVMLVersion(null_mut(), 80);
            nvmlSystemGetCudaDriverVersion_v2(null_mut());
            nvmlDeviceGetCount_v2(null_mut());
            nvmlDeviceGetHandleByIndex_v2(0, null_mut());
            nvmlDeviceGetHandleByUUID(null(), null_mut());
            nvmlDeviceGetHandleByPciBusId_v2(null(), null_mut());
            nvmlEventSetCreate(null_mut());
        }
    }

    /// Functions of a device, given NULL for what they fill.
    pub fn nulls_of(&self, device: Device) -> Vec<Call<()>> {
        let mut number = 0;
        nulls! { self;
            nvmlDeviceGetIndex(device.0, null_mut());
            nvmlDeviceGetName(device.0, null_mut(), 96);
            nvmlDeviceGetUUID(device.0, null_mut(), 96);
            nvmlDeviceGetMinorNumber(device.0, null_mut());
            nvmlDeviceGetBrand(device.0, null_mut());
            nvmlDeviceGetArchitecture(device.0, null_mut());
            nvmlDeviceGetPciInfo_v3(device.0, null_mut());
            nvmlDeviceGetMemoryInfo(device.0, null_mut());
            nvmlDeviceGetSupportedEventTypes(device.0, null_mut());
            nvmlDeviceGetMaxMigDeviceCount(device.0, null_mut());
            nvmlDeviceIsMigDeviceHandle(device.0, null_mut());
            nvmlDeviceGetMigMode(device.0, null_mut(), null_mut());
            nvmlDeviceGetMigMode(device.0, &raw mut number, null_mut());
            nvmlDeviceGetMigMode(device.0, null_mut(), &raw mut number);
        }
    }

    /// Functions of a GPU instance profile, given NULL for what they fill.
    pub fn nulls_of_profile(&self, device: Device, index: u32, id: u32) -> Vec<Call<()>> {
        let mut count = 0;
        nulls! { self;
            nvmlDeviceGetGpuInstanceProfileInfo(device.0, index, null_mut());
            nvmlDeviceGetGpuInstanceProfileInfoV(device.0, index, null_mut());
            nvmlDeviceGetGpuInstancePossiblePlacements_v2(device.0, id, null_mut(), null_mut());
            nvmlDeviceGetGpuInstanceRemainingCapacity(device.0, id, null_mut());
            nvmlDeviceGetGpuInstances(device.0, id, null_mut(), &raw mut count);
            nvmlDeviceGetGpuInstances(device.0, id, null_mut(), null_mut());
        }
    }

    /// Functions that make something, given NULL for what they made.
    pub fn nulls_of_making(&self, device: Device, id: u32) -> Vec<Call<()>> {
        let mut made = null_mut();
        nulls! { self;
            nvmlDeviceCreateGpuInstance(device.0, id, null_mut());
            nvmlDeviceCreateGpuInstanceWithPlacement(device.0, id, null(), &raw mut made);
        }
    }
}
