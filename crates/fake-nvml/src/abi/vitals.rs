//! What monitors read: an idle, healthy GPU.

use crate::{
    abi::device::both,
    arguments::{Out, OutArray, OutText},
    code::Code,
    handle::Handle,
    session::{on_device, on_gpu},
    structs::{FieldValue, Temperature, Utilization, version_of},
};

const IDLE_MILLIWATTS: u32 = 61_000;
const IDLE_CELSIUS: u32 = 39;
const SAMPLING_MICROSECONDS: u32 = 167_000;

entry_points! {
    fn nvmlDeviceGetPersistenceMode(device: Handle, mode: Out<u32>) => on_device(device, |_| mode.set(1));
    fn nvmlDeviceGetComputeMode(device: Handle, mode: Out<u32>) => on_device(device, |_| mode.set(0));
    fn nvmlDeviceGetDisplayMode(device: Handle, mode: Out<u32>) => on_gpu(device, |_| mode.set(0));
    fn nvmlDeviceGetDisplayActive(device: Handle, active: Out<u32>) => on_gpu(device, |_| active.set(0));
    fn nvmlDeviceGetVirtualizationMode(device: Handle, mode: Out<u32>) => on_gpu(device, |_| mode.set(0));
    fn nvmlDeviceGetPerformanceState(device: Handle, state: Out<u32>) => on_gpu(device, |_| state.set(0));
    fn nvmlDeviceGetPowerState(device: Handle, state: Out<u32>) => on_gpu(device, |_| state.set(0));
    fn nvmlDeviceGetPowerUsage(device: Handle, milliwatts: Out<u32>) => on_gpu(device, |_| milliwatts.set(IDLE_MILLIWATTS));
    fn nvmlDeviceGetPowerManagementMode(device: Handle, mode: Out<u32>) => on_gpu(device, |_| mode.set(1));
    fn nvmlDeviceGetPowerManagementLimit(device: Handle, milliwatts: Out<u32>) =>
        on_gpu(device, |device| milliwatts.set(device.model()?.power_limit_milliwatts));
    fn nvmlDeviceGetPowerManagementDefaultLimit(device: Handle, milliwatts: Out<u32>) =>
        on_gpu(device, |device| milliwatts.set(device.model()?.power_limit_milliwatts));
    fn nvmlDeviceGetEnforcedPowerLimit(device: Handle, milliwatts: Out<u32>) =>
        on_gpu(device, |device| milliwatts.set(device.model()?.power_limit_milliwatts));
    fn nvmlDeviceGetTemperature(device: Handle, sensor: u32, celsius: Out<u32>) => on_gpu(device, |_| {
        if sensor == 0 { celsius.set(IDLE_CELSIUS) } else { Err(Code::INVALID_ARGUMENT) }
    });
    fn nvmlDeviceGetTemperatureV(device: Handle, temperature: Out<Temperature>) => on_gpu(device, |_| {
        if temperature.version()? != version_of::<Temperature>(1) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let asked = temperature.get()?;
        temperature.set(Temperature { temperature: IDLE_CELSIUS.cast_signed(), ..asked })
    });
    fn nvmlDeviceGetEccMode(device: Handle, current: Out<u32>, pending: Out<u32>) =>
        on_gpu(device, |_| both(current, pending, 1, 1));
    fn nvmlDeviceGetDefaultEccMode(device: Handle, mode: Out<u32>) => on_gpu(device, |_| mode.set(1));
    fn nvmlDeviceGetMemoryErrorCounter(device: Handle, _kind: u32, _counter: u32, _where: u32, errors: Out<u64>) =>
        on_device(device, |_| errors.set(0));
    // A driver has no utilisation for GPUs that are cut, nor for their parts.
    fn nvmlDeviceGetUtilizationRates(device: Handle, rates: Out<Utilization>) => on_device(device, |device| {
        if device.gpu.mig_current { Err(Code::NOT_SUPPORTED) } else { rates.set(Utilization { gpu: 0, memory: 0 }) }
    });
    fn nvmlDeviceGetEncoderUtilization(device: Handle, percent: Out<u32>, period: Out<u32>) => on_device(device, |device| {
        if device.gpu.mig_current { Err(Code::NOT_SUPPORTED) } else { both(percent, period, 0, SAMPLING_MICROSECONDS) }
    });
    fn nvmlDeviceGetDecoderUtilization(device: Handle, percent: Out<u32>, period: Out<u32>) => on_device(device, |device| {
        if device.gpu.mig_current { Err(Code::NOT_SUPPORTED) } else { both(percent, period, 0, SAMPLING_MICROSECONDS) }
    });
    fn nvmlDeviceGetTotalEccErrors(device: Handle, kind: u32, counter: u32, count: Out<u64>) => on_device(device, |device| {
        if kind > 1 || counter > 1 {
            return Err(Code::INVALID_ARGUMENT);
        }
        count.set(if kind == UNCORRECTED && device.slice.is_none() { device.gpu.vitals.uncorrectable_errors } else { 0 })
    });
    fn nvmlDeviceGetRemappedRows(
        device: Handle,
        correctable: Out<u32>,
        uncorrectable: Out<u32>,
        pending: Out<u32>,
        failed: Out<u32>,
    ) => on_gpu(device, |device| {
        let vitals = device.gpu.vitals;
        both(correctable, uncorrectable, vitals.remapped_rows.0, vitals.remapped_rows.1)?;
        both(pending, failed, vitals.remap_pending.into(), vitals.remap_failed.into())
    });
    fn nvmlDeviceGetFieldValues(device: Handle, count: i32, values: OutArray<FieldValue>) => on_gpu(device, |device| {
        let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or(Code::INVALID_ARGUMENT)?;
        let answer = |asked: FieldValue| match asked.fieldId {
            RECOVERY_ACTION_FIELD => FieldValue {
                valueType: UNSIGNED_INT,
                nvmlReturn: Code::SUCCESS.0,
                value: device.gpu.vitals.recovery as u64,
                ..asked
            },
            _ => FieldValue { nvmlReturn: Code::NOT_SUPPORTED.0, ..asked },
        };
        values.update(count, answer)
    });
    fn nvmlDeviceGetGspFirmwareVersion(device: Handle, version: OutText) =>
        on_gpu(device, |device| version.set(&device.world.driver, GSP_VERSION_SIZE));
    fn nvmlDeviceGetGspFirmwareMode(device: Handle, enabled: Out<u32>, default: Out<u32>) =>
        on_gpu(device, |_| both(enabled, default, 1, 1));
}

/// `NVML_MEMORY_ERROR_TYPE_UNCORRECTED`.
const UNCORRECTED: u32 = 1;
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY_ACTION_FIELD: u32 = 230;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: u32 = 1;

/// `NVML_GSP_FIRMWARE_VERSION_BUF_SIZE`, which callers must bring.
const GSP_VERSION_SIZE: u32 = 0x40;
