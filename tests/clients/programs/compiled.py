"""Walks, cuts or clears GPUs with NVIDIA's cuda-bindings: `walk`, `cut 0:9:4 0:19`, `clear`.

GPU instance profiles go by their ids: version 3 of their description, the only one that this client asks for, has no name.
"""

import json
import sys

from cuda.bindings import nvml

NO_INSTANCE = 0xFFFFFFFF


def unless(failures, call, *arguments):
    try:
        return call(*arguments)
    except failures:
        return None


def profiles_of(device):
    found = []
    while True:
        try:
            found.append(nvml.device_get_gpu_instance_profile_info_v(device, len(found)))
        except nvml.NotSupportedError:
            found.append(None)
        except nvml.InvalidArgumentError:
            return [one for one in found if one]


def compute_profiles(instance):
    ask = nvml.gpu_instance_get_compute_instance_profile_info_v
    found = (unless(nvml.NotSupportedError, ask, instance, index, 0) for index in range(nvml.ComputeInstanceProfile.PROFILE_COUNT))
    return [one for one in found if one]


def handles(array):
    """The client hands addresses out as signed numbers and takes unsigned ones."""
    return [int(one) for one in array]


def short(name):
    return name.removeprefix("MIG ")


def place(placement):
    return {"start": int(placement.start), "size": int(placement.size_)}


def mig_devices(device):
    found = {}
    for index in range(nvml.device_get_max_mig_device_count(device)):
        mig = unless(nvml.NotFoundError, nvml.device_get_mig_device_handle_by_index, device, index)
        if mig is None:
            continue
        uuid = nvml.device_get_uuid(mig)
        again = nvml.device_get_handle_by_uuid(uuid)
        assert nvml.device_is_mig_device_handle(again)
        parent = nvml.device_get_device_handle_from_mig_device_handle(again)
        assert nvml.device_get_uuid(parent) == nvml.device_get_uuid(device)
        found[nvml.device_get_gpu_instance_id(again), nvml.device_get_compute_instance_id(again)] = index, uuid
    return found


def compute_instances(instance, parent, devices):
    found = []
    for profile in compute_profiles(instance):
        for handle in handles(nvml.gpu_instance_get_compute_instances(instance, profile.id)):
            info = nvml.compute_instance_get_info_v2(handle)
            index, uuid = devices[parent, info.id]
            name, number, at = short(profile.name), info.profile_id, place(info.placement)
            found.append({"id": info.id, "index": index, "uuid": uuid, "profile": name, "profile_id": number, "placement": at})
    return sorted(found, key=lambda compute: compute["id"])


def instances(device):
    devices = mig_devices(device)
    found = []
    for profile in profiles_of(device):
        for handle in handles(nvml.device_get_gpu_instances(device, profile.id)):
            info = nvml.gpu_instance_get_info(handle)
            found.append({
                "id": info.id,
                "profile_id": info.profile_id,
                "memory_mb": profile.memory_size_mb,
                "placement": place(info.placement),
                "compute": compute_instances(handle, info.id, devices),
            })
    assert sum(len(instance["compute"]) for instance in found) == len(devices)
    return sorted(found, key=lambda instance: instance["id"])


def processes(device):
    found = []
    kinds = (nvml.device_get_compute_running_processes_v3, False), (nvml.device_get_graphics_running_processes_v3, True)
    for call, graphics in kinds:
        for one in call(device):
            gi, ci = int(one.gpu_instance_id), int(one.compute_instance_id)
            found.append({
                "pid": int(one.pid),
                "memory": int(one.used_gpu_memory),
                "graphics": graphics,
                "instance": None if gi == NO_INSTANCE else gi,
                "compute": None if ci == NO_INSTANCE else ci,
            })
    return sorted(found, key=lambda process: process["pid"])


def gpu(index):
    device = nvml.device_get_handle_by_index_v2(index)
    mode = unless(nvml.NotSupportedError, nvml.device_get_mig_mode, device)
    return {
        "index": nvml.device_get_index(device),
        "uuid": nvml.device_get_uuid(device),
        "name": nvml.device_get_name(device),
        "minor": nvml.device_get_minor_number(device),
        "pci": nvml.device_get_pci_info_v3(device).bus_id_legacy.lower(),
        "serial": nvml.device_get_serial(device),
        "memory": nvml.device_get_memory_info_v2(device).total,
        "lost": False,
        "mig": mode and {"current": bool(mode[0]), "pending": bool(mode[1])},
        "instances": instances(device) if mode else [],
        "processes": processes(device),
    }


def walk():
    return {
        "driver": nvml.system_get_driver_version(),
        "nvml": nvml.system_get_nvml_version(),
        "cuda": nvml.system_get_cuda_driver_version_v2(),
        "gpus": [gpu(index) for index in range(nvml.device_get_count_v2())],
    }


def cut(wishes):
    """Each with a compute instance of the whole; where a start is said, there."""
    for wish in wishes:
        index, profile, *start = map(int, wish.split(":"))
        device = nvml.device_get_handle_by_index_v2(index)
        if start:
            places = nvml.device_get_gpu_instance_possible_placements_v2(device, profile)
            wanted = next(one for one in places if int(one.start) == start[0])
            instance = nvml.device_create_gpu_instance_with_placement(device, profile, wanted.ptr)
        else:
            instance = nvml.device_create_gpu_instance(device, profile)
        whole = max(compute_profiles(instance), key=lambda one: one.slice_count)
        nvml.gpu_instance_create_compute_instance(instance, whole.id)


def clear():
    for index in range(nvml.device_get_count_v2()):
        device = nvml.device_get_handle_by_index_v2(index)
        for profile in profiles_of(device):
            for instance in handles(nvml.device_get_gpu_instances(device, profile.id)):
                for part in compute_profiles(instance):
                    for compute in handles(nvml.gpu_instance_get_compute_instances(instance, part.id)):
                        nvml.compute_instance_destroy(compute)
                nvml.gpu_instance_destroy(instance)


def main():
    verb, *wishes = sys.argv[1:]
    nvml.init_v2()
    if verb == "walk":
        json.dump(walk(), sys.stdout, indent=2)
    elif verb == "cut":
        cut(wishes)
    else:
        clear()
    nvml.shutdown()


if __name__ == "__main__":
    main()
