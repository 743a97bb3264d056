//! NVML's structures, in the layout of `nvml.h`. `tests/abi` compares every one of them with NVIDIA's own header.

use core::ffi::c_char;

use crate::handle::Handle;

macro_rules! structs {
    ($($(#[doc = $doc:literal])* $c:ident = struct $name:ident { $($field:ident: $ty:ty,)* })*) => {
        $($(#[doc = $doc])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        #[allow(missing_docs, non_snake_case, reason = "the fields are NVML's, by its names")]
        pub(crate) struct $name { $(pub(crate) $field: $ty,)* }
        )*

        /// C name, size, and every field with its offset, of each structure: for comparing with a header.
        pub const LAYOUTS: &[(&str, usize, &[(&str, usize)])] = &[
            $((stringify!($c), size_of::<$name>(), &[$((stringify!($field), core::mem::offset_of!($name, $field))),*])),*
        ];
    };
}

structs! {
    /// A GPU's address.
    nvmlPciInfo_t = struct PciInfo {
        busIdLegacy: [c_char; 16],
        domain: u32,
        bus: u32,
        device: u32,
        pciDeviceId: u32,
        pciSubSystemId: u32,
        busId: [c_char; 32],
    }
    /// A GPU's address and class.
    nvmlPciInfoExt_v1_t = struct PciInfoExt {
        version: u32,
        domain: u32,
        bus: u32,
        device: u32,
        pciDeviceId: u32,
        pciSubSystemId: u32,
        baseClass: u32,
        subClass: u32,
        busId: [c_char; 32],
    }
    /// Bytes.
    nvmlMemory_t = struct MemoryInfo {
        total: u64,
        free: u64,
        used: u64,
    }
    /// Bytes, the driver's own apart.
    nvmlMemory_v2_t = struct MemoryInfoV2 {
        version: u32,
        total: u64,
        reserved: u64,
        free: u64,
        used: u64,
    }
    /// Bytes of the window on the bus.
    nvmlBAR1Memory_t = struct Bar1Memory {
        bar1Total: u64,
        bar1Free: u64,
        bar1Used: u64,
    }
    /// Percent.
    nvmlUtilization_t = struct Utilization {
        gpu: u32,
        memory: u32,
    }
    /// What a MIG device has.
    nvmlDeviceAttributes_t = struct DeviceAttributes {
        multiprocessorCount: u32,
        sharedCopyEngineCount: u32,
        sharedDecoderCount: u32,
        sharedEncoderCount: u32,
        sharedJpegCount: u32,
        sharedOfaCount: u32,
        gpuInstanceSliceCount: u32,
        computeInstanceSliceCount: u32,
        memorySizeMB: u64,
    }
    /// A GPU instance profile.
    nvmlGpuInstanceProfileInfo_t = struct GpuInstanceProfileInfo {
        id: u32,
        isP2pSupported: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        copyEngineCount: u32,
        decoderCount: u32,
        encoderCount: u32,
        jpegCount: u32,
        ofaCount: u32,
        memorySizeMB: u64,
    }
    /// The same with its name.
    nvmlGpuInstanceProfileInfo_v2_t = struct GpuInstanceProfileInfoV2 {
        version: u32,
        id: u32,
        isP2pSupported: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        copyEngineCount: u32,
        decoderCount: u32,
        encoderCount: u32,
        jpegCount: u32,
        ofaCount: u32,
        memorySizeMB: u64,
        name: [c_char; 96],
    }
    /// The same with its capabilities.
    nvmlGpuInstanceProfileInfo_v3_t = struct GpuInstanceProfileInfoV3 {
        version: u32,
        id: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        copyEngineCount: u32,
        decoderCount: u32,
        encoderCount: u32,
        jpegCount: u32,
        ofaCount: u32,
        memorySizeMB: u64,
        name: [c_char; 96],
        capabilities: u32,
    }
    /// Where a GPU instance lies.
    nvmlGpuInstancePlacement_t = struct Placement {
        start: u32,
        size: u32,
    }
    /// A GPU instance.
    nvmlGpuInstanceInfo_t = struct GpuInstanceInfo {
        device: Handle,
        id: u32,
        profileId: u32,
        placement: Placement,
    }
    /// A compute instance profile.
    nvmlComputeInstanceProfileInfo_t = struct ComputeInstanceProfileInfo {
        id: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        sharedCopyEngineCount: u32,
        sharedDecoderCount: u32,
        sharedEncoderCount: u32,
        sharedJpegCount: u32,
        sharedOfaCount: u32,
    }
    /// The same with its name.
    nvmlComputeInstanceProfileInfo_v2_t = struct ComputeInstanceProfileInfoV2 {
        version: u32,
        id: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        sharedCopyEngineCount: u32,
        sharedDecoderCount: u32,
        sharedEncoderCount: u32,
        sharedJpegCount: u32,
        sharedOfaCount: u32,
        name: [c_char; 96],
    }
    /// The same with its capabilities.
    nvmlComputeInstanceProfileInfo_v3_t = struct ComputeInstanceProfileInfoV3 {
        version: u32,
        id: u32,
        sliceCount: u32,
        instanceCount: u32,
        multiprocessorCount: u32,
        sharedCopyEngineCount: u32,
        sharedDecoderCount: u32,
        sharedEncoderCount: u32,
        sharedJpegCount: u32,
        sharedOfaCount: u32,
        name: [c_char; 96],
        capabilities: u32,
    }
    /// A compute instance.
    nvmlComputeInstanceInfo_t = struct ComputeInstanceInfo {
        device: Handle,
        gpuInstance: Handle,
        id: u32,
        profileId: u32,
        placement: Placement,
    }
    /// An event.
    nvmlEventData_t = struct EventData {
        device: Handle,
        eventType: u64,
        eventData: u64,
        gpuInstanceId: u32,
        computeInstanceId: u32,
    }
    /// A program on a GPU, as the first version of the calls gives it.
    nvmlProcessInfo_v1_t = struct ProcessInfoV1 {
        pid: u32,
        usedGpuMemory: u64,
    }
    /// A program on a GPU.
    nvmlProcessInfo_t = struct ProcessInfo {
        pid: u32,
        usedGpuMemory: u64,
        gpuInstanceId: u32,
        computeInstanceId: u32,
    }
    /// One number of many that can be asked for by an id.
    nvmlFieldValue_t = struct FieldValue {
        fieldId: u32,
        scopeId: u32,
        timestamp: i64,
        latencyUsec: i64,
        valueType: u32,
        nvmlReturn: u32,
        value: u64,
    }
    /// How memory addresses are translated.
    nvmlDeviceAddressingMode_v1_t = struct AddressingMode {
        version: u32,
        value: u32,
    }
    /// Degrees Celsius.
    nvmlTemperature_v1_t = struct Temperature {
        version: u32,
        sensorType: u32,
        temperature: i32,
    }
}

/// An event as `nvmlEventSetWait` wrote it before there were instances; no header has this any more.
#[derive(Clone, Copy)]
#[repr(C)]
#[allow(non_snake_case, reason = "the fields are NVML's, by its names")]
pub(crate) struct EventDataV1 {
    pub(crate) device: Handle,
    pub(crate) eventType: u64,
    pub(crate) eventData: u64,
}

/// `NVML_STRUCT_VERSION`: the size, and the version in the top byte.
pub(crate) const fn version_of<T>(version: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "no structure here comes near 4 GiB")]
    let size = size_of::<T>() as u32;
    size | version << 24
}

/// The version macros of `nvml.h` that the library checks, and their values.
pub const VERSIONS: &[(&str, u32)] = &[
    ("nvmlPciInfoExt_v1", version_of::<PciInfoExt>(1)),
    ("nvmlMemory_v2", version_of::<MemoryInfoV2>(2)),
    ("nvmlGpuInstanceProfileInfo_v2", version_of::<GpuInstanceProfileInfoV2>(2)),
    ("nvmlGpuInstanceProfileInfo_v3", version_of::<GpuInstanceProfileInfoV3>(3)),
    ("nvmlComputeInstanceProfileInfo_v2", version_of::<ComputeInstanceProfileInfoV2>(2)),
    ("nvmlComputeInstanceProfileInfo_v3", version_of::<ComputeInstanceProfileInfoV3>(3)),
    ("nvmlDeviceAddressingMode_v1", version_of::<AddressingMode>(1)),
    ("nvmlTemperature_v1", version_of::<Temperature>(1)),
];
