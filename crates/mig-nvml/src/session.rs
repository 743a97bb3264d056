//! NVML between init and shutdown. Every call that nvml-wrapper lacks, or does not bind, is in here and in the modules
//! below, and so is every `unsafe` of the product.

mod call;
mod events;
mod gpu;
mod instance;
mod processes;
mod profile;
mod vitals;

use std::path::Path;
use std::time::Instant;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlComputeInstance_t, nvmlDevice_t, nvmlGpuInstance_t};

pub(crate) use events::{Event, EventSet, XIDS};
pub(crate) use processes::Seen;
pub(crate) use profile::{ComputeProfileInfo, ProfileInfo, Share};

use crate::error::DriverError;
use crate::library::Library;
use crate::metrics::Metrics;

/// NVML, started. Ends it when dropped.
pub(crate) struct Session {
    nvml: Nvml,
    metrics: Metrics,
}

/// A thing of NVML's. Valid until something changes: layouts and modes invalidate handles.
#[derive(Clone, Copy)]
pub(crate) struct Object<'s, H> {
    session: &'s Session,
    raw: H,
    /// NVML's index of the GPU, for messages.
    gpu: u32,
}

/// A GPU or a MIG device.
pub(crate) type Handle<'s> = Object<'s, nvmlDevice_t>;
/// A GPU instance.
pub(crate) type InstanceHandle<'s> = Object<'s, nvmlGpuInstance_t>;
/// A compute instance.
pub(crate) type ComputeHandle<'s> = Object<'s, nvmlComputeInstance_t>;

impl Session {
    /// Loads the library and starts NVML.
    pub(crate) fn start(library: &Library, driver_root: &Path, metrics: Metrics) -> Result<Self, DriverError> {
        let path = library.to_loader();
        let began = Instant::now();
        let started = Nvml::builder().lib_path(&path).init();
        metrics.answered("nvmlInit_v2", began.elapsed(), started.as_ref().err());
        match started {
            Ok(nvml) => Ok(Self { nvml, metrics }),
            Err(NvmlError::LibloadingError(error)) => Err(library.unloadable(error.to_string(), driver_root).into()),
            Err(source) => Err(DriverError::Init { source }),
        }
    }

    fn functions(&self) -> &NvmlLib {
        self.nvml.lib()
    }

    pub(crate) fn driver_version(&self) -> Result<String, DriverError> {
        self.text("nvmlSystemGetDriverVersion", &self.functions().nvmlSystemGetDriverVersion)
    }

    pub(crate) fn nvml_version(&self) -> Result<String, DriverError> {
        self.text("nvmlSystemGetNVMLVersion", &self.functions().nvmlSystemGetNVMLVersion)
    }

    /// The newest CUDA that the driver runs, major and minor.
    pub(crate) fn cuda_version(&self) -> Result<(u32, u32), DriverError> {
        let version = self.timed("nvmlSystemGetCudaDriverVersion_v2", None, || self.nvml.sys_cuda_driver_version())?;
        let part = |number: i32| u32::try_from(number).unwrap_or_default();
        Ok((part(version / 1000), part(version % 1000 / 10)))
    }

    pub(crate) fn gpu_count(&self) -> Result<u32, DriverError> {
        self.timed("nvmlDeviceGetCount_v2", None, || self.nvml.device_count())
    }

    pub(crate) fn gpu(&self, index: u32) -> Result<Handle<'_>, DriverError> {
        let device = self.timed("nvmlDeviceGetHandleByIndex_v2", Some(index), || self.nvml.device_by_index(index))?;
        // SAFETY: the wrapper only warns that the raw handle escapes its lifetime; ours holds the session's instead.
        let raw = unsafe { device.handle() };
        Ok(Object { session: self, raw, gpu: index })
    }

    pub(crate) fn gpu_by_uuid(&self, uuid: &mig_model::GpuUuid) -> Result<Handle<'_>, DriverError> {
        let found = self.timed("nvmlDeviceGetHandleByUUID", None, || self.nvml.device_by_uuid(uuid.as_str()));
        let device = found.map_err(|error| match error.nvml() {
            Some(NvmlError::NotFound) => DriverError::NoSuchGpu(uuid.clone()),
            _ => error,
        })?;
        // SAFETY: as in `gpu`.
        let raw = unsafe { device.handle() };
        let unnumbered = Object { session: self, raw, gpu: u32::MAX };
        Ok(Object { gpu: unnumbered.index()?, ..unnumbered })
    }
}

impl<H> Object<'_, H> {
    /// NVML's index of the GPU that it is on.
    pub(crate) fn gpu_index(&self) -> u32 {
        self.gpu
    }
}
