//! NVML between init and shutdown. Every call that nvml-wrapper lacks, or does not bound, is here, and so is every
//! `unsafe` of the product.

use std::ffi::c_char;
use std::mem::{MaybeUninit, size_of};
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::{NvmlError, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlDeviceAttributes_t, nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstanceProfileInfo_t,
    nvmlGpuInstanceProfileInfo_v2_t, nvmlPciInfo_t,
};

use crate::error::DriverError;
use crate::library::Library;

/// The longest text that NVML gives (`NVML_DEVICE_UUID_V2_BUFFER_SIZE` and its like are 96 or less).
const TEXT: u32 = 96;

/// NVML, started. Ends it when dropped.
pub(crate) struct Session {
    nvml: Nvml,
}

/// A GPU or a MIG device. Valid for one pass: a change of layout invalidates handles.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'s> {
    session: &'s Session,
    device: nvmlDevice_t,
    /// NVML's index of the GPU, for messages.
    gpu: u32,
}

/// A GPU instance as the driver describes it.
pub(crate) struct InstanceInfo {
    pub(crate) profile_id: u32,
    pub(crate) start: u32,
    pub(crate) size: u32,
}

/// What a GPU instance has, as the driver describes its profile and each MIG device in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) slices: u32,
    pub(crate) memory_mib: u64,
    /// Copy engines, decoders, encoders, JPEG and optical-flow units.
    pub(crate) engines: [u32; 5],
}

/// A GPU instance profile as the driver describes it.
pub(crate) struct ProfileInfo {
    pub(crate) id: u32,
    pub(crate) share: Share,
    /// Drivers that know version 2 of the call give a name.
    pub(crate) name: Option<String>,
}

impl Session {
    /// Loads the library and starts NVML.
    pub(crate) fn start(library: &Library, driver_root: &Path) -> Result<Self, DriverError> {
        let path = library.to_loader();
        match Nvml::builder().lib_path(&path).init() {
            Ok(nvml) => Ok(Self { nvml }),
            Err(NvmlError::LibloadingError(error)) => Err(library.unloadable(error.to_string(), driver_root).into()),
            Err(source) => Err(DriverError::Init { source }),
        }
    }

    pub(crate) fn driver_version(&self) -> Result<String, DriverError> {
        self.text("nvmlSystemGetDriverVersion", present(&self.nvml.lib().nvmlSystemGetDriverVersion))
    }

    pub(crate) fn nvml_version(&self) -> Result<String, DriverError> {
        self.text("nvmlSystemGetNVMLVersion", present(&self.nvml.lib().nvmlSystemGetNVMLVersion))
    }

    fn text(
        &self,
        name: &'static str,
        function: Result<unsafe extern "C" fn(*mut c_char, u32) -> u32, NvmlError>,
    ) -> Result<String, DriverError> {
        let mut buffer = [0; TEXT as usize];
        let call = |buffer: &mut [c_char; TEXT as usize]| {
            let function = function?;
            // SAFETY: NVML is started; the pointer is to `TEXT` writable characters, and the length says so.
            nvml_try(unsafe { function(buffer.as_mut_ptr(), TEXT) })
        };
        call(&mut buffer).map_err(failed(name, None))?;
        Ok(text(&buffer))
    }

    pub(crate) fn gpu_count(&self) -> Result<u32, DriverError> {
        self.nvml.device_count().map_err(failed("nvmlDeviceGetCount_v2", None))
    }

    pub(crate) fn gpu(&self, index: u32) -> Result<Handle<'_>, DriverError> {
        let device = self.nvml.device_by_index(index).map_err(failed("nvmlDeviceGetHandleByIndex_v2", Some(index)))?;
        // SAFETY: the wrapper only warns that the raw handle escapes its lifetime; ours holds the session's instead.
        let device = unsafe { device.handle() };
        Ok(Handle { session: self, device, gpu: index })
    }
}

/// `map_err` for one call.
fn failed(call: &'static str, gpu: Option<u32>) -> impl Fn(NvmlError) -> DriverError {
    move |source| DriverError::Call { call, gpu, source }
}

/// A function that an older library may lack.
fn present<T: Copy, E>(symbol: &Result<T, E>) -> Result<T, NvmlError> {
    symbol.as_ref().map(|function| *function).map_err(|_| NvmlError::FunctionNotFound)
}

/// What stands before the first NUL, or all of it; a driver's text is never trusted to end, to be UTF-8, or to be one line.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).replace(char::is_control, "\u{fffd}")
}

/// `NVML_STRUCT_VERSION`: the size below, the version in the top byte.
#[expect(clippy::cast_possible_truncation, reason = "NVML's structs are some hundred bytes long")]
const fn versioned<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}

// === impl Handle ===

impl<'s> Handle<'s> {
    fn failed(&self, call: &'static str) -> impl Fn(NvmlError) -> DriverError + use<> {
        failed(call, Some(self.gpu))
    }

    /// Calls a function that fills one struct or number.
    fn fill<T>(
        &self,
        name: &'static str,
        function: Result<unsafe extern "C" fn(nvmlDevice_t, *mut T) -> u32, NvmlError>,
    ) -> Result<T, DriverError> {
        let call = || {
            let function = function?;
            let mut value = MaybeUninit::<T>::zeroed();
            // SAFETY: `device` came from this session, which is alive; the pointer is to a live, writable T, which is
            // what this function's second parameter points to by its type.
            nvml_try(unsafe { function(self.device, value.as_mut_ptr()) })?;
            // SAFETY: T is a C struct or number out of the bindings, for which all bytes zero is a value, and NVML has
            // reported that it filled it.
            Ok(unsafe { value.assume_init() })
        };
        call().map_err(self.failed(name))
    }

    pub(crate) fn uuid(&self) -> Result<String, DriverError> {
        self.text("nvmlDeviceGetUUID", present(&self.session.nvml.lib().nvmlDeviceGetUUID))
    }

    pub(crate) fn name(&self) -> Result<String, DriverError> {
        self.text("nvmlDeviceGetName", present(&self.session.nvml.lib().nvmlDeviceGetName))
    }

    fn text(
        &self,
        name: &'static str,
        function: Result<unsafe extern "C" fn(nvmlDevice_t, *mut c_char, u32) -> u32, NvmlError>,
    ) -> Result<String, DriverError> {
        let mut buffer = [0; TEXT as usize];
        let call = |buffer: &mut [c_char; TEXT as usize]| {
            let function = function?;
            // SAFETY: `device` came from this session, which is alive; the pointer is to `TEXT` writable characters,
            // and the length says so.
            nvml_try(unsafe { function(self.device, buffer.as_mut_ptr(), TEXT) })
        };
        call(&mut buffer).map_err(self.failed(name))?;
        Ok(text(&buffer))
    }

    pub(crate) fn minor(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetMinorNumber", present(&self.session.nvml.lib().nvmlDeviceGetMinorNumber))
    }

    /// Domain, bus, device, and NVML's text of all of it.
    pub(crate) fn pci(&self) -> Result<(u32, String), DriverError> {
        let info: nvmlPciInfo_t =
            self.fill("nvmlDeviceGetPciInfo_v3", present(&self.session.nvml.lib().nvmlDeviceGetPciInfo_v3))?;
        Ok((info.pciDeviceId, text(&info.busId)))
    }

    pub(crate) fn memory_bytes(&self) -> Result<u64, DriverError> {
        let info: nvml_wrapper_sys::bindings::nvmlMemory_t =
            self.fill("nvmlDeviceGetMemoryInfo", present(&self.session.nvml.lib().nvmlDeviceGetMemoryInfo))?;
        Ok(info.total)
    }

    /// MIG mode now and after the next reset.
    pub(crate) fn mig_mode(&self) -> Result<(bool, bool), DriverError> {
        let (mut current, mut pending) = (0, 0);
        let call = |current: &mut u32, pending: &mut u32| {
            let function = present(&self.session.nvml.lib().nvmlDeviceGetMigMode)?;
            // SAFETY: `device` came from this session, which is alive; both pointers are to live, writable numbers.
            nvml_try(unsafe { function(self.device, current, pending) })
        };
        call(&mut current, &mut pending).map_err(self.failed("nvmlDeviceGetMigMode"))?;
        Ok((current == 1, pending == 1))
    }

    pub(crate) fn max_mig_devices(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetMaxMigDeviceCount", present(&self.session.nvml.lib().nvmlDeviceGetMaxMigDeviceCount))
    }

    pub(crate) fn mig_device(&self, index: u32) -> Result<Handle<'s>, DriverError> {
        let mut device: nvmlDevice_t = std::ptr::null_mut();
        let call = |device: &mut nvmlDevice_t| {
            let function = present(&self.session.nvml.lib().nvmlDeviceGetMigDeviceHandleByIndex)?;
            // SAFETY: `device` came from this session, which is alive; the pointer is to a live, writable handle.
            nvml_try(unsafe { function(self.device, index, device) })
        };
        call(&mut device).map_err(self.failed("nvmlDeviceGetMigDeviceHandleByIndex"))?;
        Ok(Handle { device, ..*self })
    }

    pub(crate) fn gpu_instance_id(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetGpuInstanceId", present(&self.session.nvml.lib().nvmlDeviceGetGpuInstanceId))
    }

    pub(crate) fn compute_instance_id(&self) -> Result<u32, DriverError> {
        self.fill("nvmlDeviceGetComputeInstanceId", present(&self.session.nvml.lib().nvmlDeviceGetComputeInstanceId))
    }

    /// What a MIG device's GPU instance has, and the compute slices of its compute instance.
    pub(crate) fn attributes(&self) -> Result<(Share, u32), DriverError> {
        let a: nvmlDeviceAttributes_t =
            self.fill("nvmlDeviceGetAttributes_v2", present(&self.session.nvml.lib().nvmlDeviceGetAttributes_v2))?;
        let engines =
            [a.sharedCopyEngineCount, a.sharedDecoderCount, a.sharedEncoderCount, a.sharedJpegCount, a.sharedOfaCount];
        let share = Share { slices: a.gpuInstanceSliceCount, memory_mib: a.memorySizeMB, engines };
        Ok((share, a.computeInstanceSliceCount))
    }

    pub(crate) fn gpu_instance(&self, id: u32) -> Result<InstanceInfo, DriverError> {
        let mut instance: nvmlGpuInstance_t = std::ptr::null_mut();
        let find = |instance: &mut nvmlGpuInstance_t| {
            let function = present(&self.session.nvml.lib().nvmlDeviceGetGpuInstanceById)?;
            // SAFETY: `device` came from this session, which is alive; the pointer is to a live, writable handle.
            nvml_try(unsafe { function(self.device, id, instance) })
        };
        find(&mut instance).map_err(self.failed("nvmlDeviceGetGpuInstanceById"))?;
        let mut info = MaybeUninit::<nvmlGpuInstanceInfo_t>::zeroed();
        let describe = |info: &mut MaybeUninit<nvmlGpuInstanceInfo_t>| {
            let function = present(&self.session.nvml.lib().nvmlGpuInstanceGetInfo)?;
            // SAFETY: NVML has just given `instance`; the pointer is to a live, writable struct of the type it fills.
            nvml_try(unsafe { function(instance, info.as_mut_ptr()) })
        };
        describe(&mut info).map_err(self.failed("nvmlGpuInstanceGetInfo"))?;
        // SAFETY: numbers and a pointer that is never followed: all bytes zero is a value, and NVML has filled it.
        let info = unsafe { info.assume_init() };
        Ok(InstanceInfo { profile_id: info.profileId, start: info.placement.start, size: info.placement.size })
    }

    /// A GPU instance profile by its id: drivers of R575 and later.
    pub(crate) fn profile_by_id(&self, id: u32) -> Result<ProfileInfo, DriverError> {
        let function = present(&self.session.nvml.lib().nvmlDeviceGetGpuInstanceProfileInfoByIdV);
        self.profile_v2("nvmlDeviceGetGpuInstanceProfileInfoByIdV", function, id)
    }

    /// A GPU instance profile by its index: drivers of R510 and later.
    pub(crate) fn profile_by_index(&self, index: u32) -> Result<ProfileInfo, DriverError> {
        let function = present(&self.session.nvml.lib().nvmlDeviceGetGpuInstanceProfileInfoV);
        self.profile_v2("nvmlDeviceGetGpuInstanceProfileInfoV", function, index)
    }

    fn profile_v2(
        &self,
        name: &'static str,
        function: Result<
            unsafe extern "C" fn(nvmlDevice_t, u32, *mut nvmlGpuInstanceProfileInfo_v2_t) -> u32,
            NvmlError,
        >,
        which: u32,
    ) -> Result<ProfileInfo, DriverError> {
        let call = || {
            let function = function?;
            let mut info = MaybeUninit::<nvmlGpuInstanceProfileInfo_v2_t>::zeroed();
            // SAFETY: the struct is numbers and characters, for which all bytes zero is a value.
            let info = unsafe { info.assume_init_mut() };
            info.version = versioned::<nvmlGpuInstanceProfileInfo_v2_t>(2);
            // SAFETY: `device` came from this session, which is alive; the pointer is to a live struct whose version
            // field tells NVML its size.
            nvml_try(unsafe { function(self.device, which, info) })?;
            let name = Some(text(&info.name)).filter(|name| !name.is_empty());
            let engines = [info.copyEngineCount, info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount];
            let share = Share { slices: info.sliceCount, memory_mib: info.memorySizeMB, engines };
            Ok(ProfileInfo { id: info.id, share, name })
        };
        call().map_err(self.failed(name))
    }

    /// A GPU instance profile by its index, without a name: every driver that knows MIG.
    pub(crate) fn unnamed_profile_by_index(&self, index: u32) -> Result<ProfileInfo, DriverError> {
        let call = || {
            let function = present(&self.session.nvml.lib().nvmlDeviceGetGpuInstanceProfileInfo)?;
            let mut info = MaybeUninit::<nvmlGpuInstanceProfileInfo_t>::zeroed();
            // SAFETY: `device` came from this session, which is alive; the pointer is to a live, writable struct of the
            // type it fills.
            nvml_try(unsafe { function(self.device, index, info.as_mut_ptr()) })?;
            // SAFETY: numbers, for which all bytes zero is a value, and NVML has filled them.
            let info = unsafe { info.assume_init() };
            let engines = [info.copyEngineCount, info.decoderCount, info.encoderCount, info.jpegCount, info.ofaCount];
            let share = Share { slices: info.sliceCount, memory_mib: info.memorySizeMB, engines };
            Ok(ProfileInfo { id: info.id, share, name: None })
        };
        call().map_err(self.failed("nvmlDeviceGetGpuInstanceProfileInfo"))
    }
}
