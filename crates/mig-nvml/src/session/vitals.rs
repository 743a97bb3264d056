//! How a GPU's hardware does.

use mig_model::{Recovery, RemappedRows, Vitals};
use nvml_wrapper::error::nvml_try;
use nvml_wrapper_sys::bindings::{field_id, nvmlFieldValue_t};

use super::Handle;
use super::call::{Plain as _, present};
use crate::error::DriverError;

/// `NVML_MEMORY_ERROR_TYPE_UNCORRECTED`.
const UNCORRECTED: u32 = 1;
/// `NVML_VOLATILE_ECC`: since the driver was loaded, or the GPU was reset.
const VOLATILE: u32 = 0;

impl Handle<'_> {
    /// What the driver tells of it. What it does not tell is not known: a GPU that cannot be asked fails otherwise.
    pub(crate) fn vitals(&self) -> Vitals {
        Vitals {
            uncorrectable_errors: self.uncorrectable_errors().ok(),
            remapped_rows: self.remapped_rows().ok(),
            recovery: self.recovery().ok(),
        }
    }

    fn uncorrectable_errors(&self) -> Result<u64, DriverError> {
        let mut count = 0;
        self.timed("nvmlDeviceGetTotalEccErrors", || {
            let function = present(&self.session.functions().nvmlDeviceGetTotalEccErrors)?;
            // SAFETY: the GPU came from this session, which is alive; the pointer is to a live, writable number.
            nvml_try(unsafe { function(self.raw, UNCORRECTED, VOLATILE, &raw mut count) })
        })?;
        Ok(count)
    }

    fn remapped_rows(&self) -> Result<RemappedRows, DriverError> {
        let [mut correctable, mut uncorrectable, mut pending, mut failed] = [0; 4];
        self.timed("nvmlDeviceGetRemappedRows", || {
            let function = present(&self.session.functions().nvmlDeviceGetRemappedRows)?;
            let (one, two, three, four) =
                (&raw mut correctable, &raw mut uncorrectable, &raw mut pending, &raw mut failed);
            // SAFETY: the GPU came from this session, which is alive; all pointers are to live, writable numbers.
            nvml_try(unsafe { function(self.raw, one, two, three, four) })
        })?;
        Ok(RemappedRows { correctable, uncorrectable, pending: pending != 0, failed: failed != 0 })
    }

    fn recovery(&self) -> Result<Recovery, DriverError> {
        let mut field =
            nvmlFieldValue_t { fieldId: field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, ..nvmlFieldValue_t::zero() };
        self.timed("nvmlDeviceGetFieldValues", || {
            let function = present(&self.session.functions().nvmlDeviceGetFieldValues)?;
            // SAFETY: the GPU came from this session, which is alive; the pointer is to one live, writable field.
            nvml_try(unsafe { function(self.raw, 1, &raw mut field) })?;
            nvml_try(field.nvmlReturn)
        })?;
        // SAFETY: NVML has filled an unsigned int; any bits are one.
        let action = unsafe { field.value.uiVal };
        Ok(match action {
            0 => Recovery::None,
            1 => Recovery::GpuReset,
            2 => Recovery::NodeReboot,
            3 => Recovery::DrainP2p,
            4 => Recovery::DrainAndReset,
            other => Recovery::Other(other),
        })
    }
}
