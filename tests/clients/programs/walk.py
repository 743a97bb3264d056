"""Walks every GPU and MIG device with nvidia-ml-py, unmodified, and prints what it sees as `fake-nvml show -o json` does."""

import ctypes
import json
import sys

import pynvml as nvml

NO_INSTANCE = 0xFFFFFFFF


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def unless(codes, call, *arguments):
    """The call's result, or None when it fails with one of these codes."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if error.value in codes:
            return None
        raise


def profiles_of(device):
    """Every GPU instance profile that the GPU has, by the way the header recommends."""
    found = []
    index = 0
    while True:
        try:
            found.append(nvml.nvmlDeviceGetGpuInstanceProfileInfo(device, index))
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_INVALID_ARGUMENT:
                return found
            if error.value != nvml.NVML_ERROR_NOT_SUPPORTED:
                raise
        index += 1


def handles_of(call, parent, profile):
    handles = (nvml.c_nvmlGpuInstance_t * 16)()
    count = ctypes.c_uint()
    call(parent, profile, handles, ctypes.byref(count))
    return list(handles)[: count.value]


def placement_of(info):
    return {"start": info.placement.start, "size": info.placement.size}


def short(name):
    return text(name).removeprefix("MIG ")


def compute_instances(instance, devices):
    found = []
    for index in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        codes = {nvml.NVML_ERROR_NOT_SUPPORTED}
        profile = unless(codes, nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, index, 0)
        if profile is None:
            continue
        for handle in handles_of(nvml.nvmlGpuInstanceGetComputeInstances, instance, profile.id):
            info = nvml.nvmlComputeInstanceGetInfo_v2(ctypes.cast(handle, nvml.c_nvmlComputeInstance_t))
            parent = nvml.nvmlGpuInstanceGetInfo(instance).id
            index_of, uuid = devices[parent, info.id]
            found.append({
                "id": info.id,
                "index": index_of,
                "uuid": uuid,
                "profile": short(profile.name),
                "profile_id": info.profileId,
                "placement": placement_of(info),
            })
    return sorted(found, key=lambda compute: compute["id"])


def mig_devices(device):
    """Index and UUID of each MIG device by its instances' ids; it has to lead back to itself and its GPU."""
    found = {}
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        mig = unless({nvml.NVML_ERROR_NOT_FOUND}, nvml.nvmlDeviceGetMigDeviceHandleByIndex, device, index)
        if mig is None:
            continue
        uuid = text(nvml.nvmlDeviceGetUUID(mig))
        parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)
        # The client hands out the C integer here, not its value.
        assert nvml.nvmlDeviceIsMigDeviceHandle(mig).value == 1
        assert text(nvml.nvmlDeviceGetUUID(parent)) == text(nvml.nvmlDeviceGetUUID(device))
        assert text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByUUID(uuid))) == uuid
        assert nvml.nvmlDeviceGetMemoryInfo(mig).total == nvml.nvmlDeviceGetAttributes(mig).memorySizeMB << 20
        key = nvml.nvmlDeviceGetGpuInstanceId(mig), nvml.nvmlDeviceGetComputeInstanceId(mig)
        found[key] = index, uuid
    return found


def instances(device):
    devices = mig_devices(device)
    found = []
    for profile in profiles_of(device):
        for handle in handles_of(nvml.nvmlDeviceGetGpuInstances, device, profile.id):
            info = nvml.nvmlGpuInstanceGetInfo(handle)
            found.append({
                "id": info.id,
                "profile": short(profile.name),
                "profile_id": info.profileId,
                "memory_mb": profile.memorySizeMB,
                "placement": placement_of(info),
                "compute": compute_instances(handle, devices),
            })
    assert sum(len(instance["compute"]) for instance in found) == len(devices)
    return sorted(found, key=lambda instance: instance["id"])


def processes(device):
    """Who uses the GPU, or a slice of it."""
    found = []
    kinds = (nvml.nvmlDeviceGetComputeRunningProcesses, False), (nvml.nvmlDeviceGetGraphicsRunningProcesses, True)
    for call, graphics in kinds:
        for process in call(device):
            found.append({
                "pid": process.pid,
                "name": text(nvml.nvmlSystemGetProcessName(process.pid)),
                "memory": process.usedGpuMemory,
                "graphics": graphics,
                "instance": None if process.gpuInstanceId == NO_INSTANCE else process.gpuInstanceId,
                "compute": None if process.computeInstanceId == NO_INSTANCE else process.computeInstanceId,
            })
    return sorted(found, key=lambda process: process["pid"])


def gpu(index):
    device = unless({nvml.NVML_ERROR_GPU_IS_LOST}, nvml.nvmlDeviceGetHandleByIndex, index)
    if device is None:
        return {"index": index, "lost": True}
    mode = unless({nvml.NVML_ERROR_NOT_SUPPORTED}, nvml.nvmlDeviceGetMigMode, device)
    minor = unless({nvml.NVML_ERROR_GPU_IS_LOST}, nvml.nvmlDeviceGetMinorNumber, device)
    return {
        "index": nvml.nvmlDeviceGetIndex(device),
        "uuid": text(nvml.nvmlDeviceGetUUID(device)),
        "name": text(nvml.nvmlDeviceGetName(device)),
        "minor": minor,
        "pci": text(nvml.nvmlDeviceGetPciInfo(device).busIdLegacy).lower(),
        "serial": text(nvml.nvmlDeviceGetSerial(device)),
        "memory": nvml.nvmlDeviceGetMemoryInfo(device).total,
        "lost": False,
        "mig": mode and {"current": bool(mode[0]), "pending": bool(mode[1])},
        "instances": instances(device) if mode else [],
        "processes": processes(device),
    }


def machine():
    return {
        "driver": text(nvml.nvmlSystemGetDriverVersion()),
        "nvml": text(nvml.nvmlSystemGetNVMLVersion()),
        "cuda": nvml.nvmlSystemGetCudaDriverVersion_v2(),
        "gpus": [gpu(index) for index in range(nvml.nvmlDeviceGetCount())],
    }


def main():
    nvml.nvmlInit()
    json.dump(machine(), sys.stdout, indent=2)
    nvml.nvmlShutdown()


if __name__ == "__main__":
    main()
