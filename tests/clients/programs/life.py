"""The whole life of MIG slices, with nvidia-ml-py alone: every phase has to look as `fake-nvml show` says."""

import argparse
import ctypes

import pynvml as nvml

from programs import tools, walk

WHOLE = 0xFFFFFFFF


def refused(code, call, *arguments):
    """The call has to fail with this code."""
    try:
        call(*arguments)
    except nvml.NVMLError as error:
        assert error.value == code, f"{call.__name__}: expected {code}, got {error.value} ({error})"
    else:
        raise AssertionError(f"{call.__name__}: expected {code}, it was done")


def profile(device, name):
    return next(one for one in walk.profiles_of(device) if walk.short(one.name) == name)


def compute_profiles(instance):
    """By the number of their slices."""
    found = {}
    for index in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE + 1):
        one = walk.unless({nvml.NVML_ERROR_NOT_SUPPORTED}, nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, index, 0)
        if one:
            found[one.sliceCount] = one
    return found


def places(device, wanted):
    room = (nvml.c_nvmlGpuInstancePlacement_t * 32)()
    count = ctypes.c_uint(32)
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, wanted.id, room, ctypes.byref(count))
    return [(one.start, one.size) for one in room[: count.value]]


def place(start, size):
    return ctypes.byref(nvml.c_nvmlGpuInstancePlacement_t(start, size))


class Events:
    """What the driver tells a process that registered for changes and XIDs of the first GPU, and for nothing of the second."""

    def __init__(self, device):
        self.set = nvml.nvmlEventSetCreate()
        self.register(device)

    def register(self, device):
        nvml.nvmlDeviceRegisterEvents(device, nvml.nvmlEventMigConfigChange | nvml.nvmlEventTypeXidCriticalError, self.set)

    def next(self):
        return nvml.nvmlEventSetWait_v2(self.set, 60_000)

    def expect_change(self):
        assert self.next().eventType == nvml.nvmlEventMigConfigChange

    def expect_xid(self, *expected):
        told = self.next()
        seen = told.eventType, told.eventData, told.gpuInstanceId, told.computeInstanceId
        assert seen == (nvml.nvmlEventTypeXidCriticalError, *expected), f"expected {expected}, got {seen}"

    def expect_none(self):
        refused(nvml.NVML_ERROR_TIMEOUT, nvml.nvmlEventSetWait_v2, self.set, 0)

    def close(self):
        nvml.nvmlEventSetFree(self.set)


class Life:
    def __init__(self, arguments):
        self.small_name, self.big_name, self.start = arguments.small, arguments.big, arguments.start
        self.needs_reset = arguments.needs_reset
        self.device = nvml.nvmlDeviceGetHandleByIndex(0)

    def check(self, phase):
        tools.as_shown(walk.machine(), phase)

    @property
    def instances(self):
        return tools.scene()["gpus"][0]["instances"]

    def switch(self, on):
        """MIG mode, with or without the reset that it takes; then every handle is got anew."""
        before = [int(not on)] * 2
        assert nvml.nvmlDeviceGetMigMode(self.device) == before
        activation = nvml.nvmlDeviceSetMigMode(self.device, int(on))
        if self.needs_reset:
            assert activation == nvml.NVML_ERROR_RESET_REQUIRED, activation
            assert nvml.nvmlDeviceGetMigMode(self.device) == [int(not on), int(on)]
            self.check("mode pending")
            tools.control("reset-gpu", 0)
            refused(nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.nvmlDeviceGetMigMode, self.device)
        else:
            assert activation == nvml.NVML_SUCCESS, activation
        self.device = nvml.nvmlDeviceGetHandleByIndex(0)
        assert nvml.nvmlDeviceGetMigMode(self.device) == [int(on)] * 2
        self.check(f"MIG {'on' if on else 'off'}")

    def off(self):
        self.check("before anything")
        small = profile(self.device, self.small_name)
        refused(nvml.NVML_ERROR_NOT_SUPPORTED, nvml.nvmlDeviceCreateGpuInstance, self.device, small.id)

    def create(self):
        """GPU instances: one at a stated place, one where the driver wants it, and none where there is no room."""
        self.small, self.big = profile(self.device, self.small_name), profile(self.device, self.big_name)
        starts = dict(places(self.device, self.big))
        size = starts[self.start]
        by_place = nvml.nvmlDeviceCreateGpuInstanceWithPlacement
        illegal = next(start for start in range(size) if start not in starts)
        refused(nvml.NVML_ERROR_INVALID_ARGUMENT, by_place, self.device, self.big.id, place(illegal, size))
        first = by_place(self.device, self.big.id, place(self.start, size))
        info = nvml.nvmlGpuInstanceGetInfo(first)
        assert (info.profileId, info.placement.start, info.placement.size) == (self.big.id, self.start, size)
        assert nvml.nvmlDeviceGetMaxMigDeviceCount(self.device) > 0
        self.check("a GPU instance at a place")
        refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, by_place, self.device, self.big.id, place(self.start, size))
        second = nvml.nvmlDeviceCreateGpuInstance(self.device, self.big.id)
        assert nvml.nvmlGpuInstanceGetInfo(second).placement.start == 0
        self.check("a GPU instance where there was room")
        refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, nvml.nvmlDeviceCreateGpuInstance, self.device, self.big.id)
        refused(nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.nvmlDeviceCreateGpuInstance, self.device, 99)
        nvml.nvmlGpuInstanceDestroy(second)
        refused(nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.nvmlGpuInstanceGetInfo, second)
        self.check("one less")
        self.first = info.id

    def fill(self):
        """Small ones until there is no room, as many as were said to fit."""
        room = nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(self.device, self.small.id)
        for left in range(room, 0, -1):
            assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(self.device, self.small.id) == left
            nvml.nvmlDeviceCreateGpuInstance(self.device, self.small.id)
        assert nvml.nvmlDeviceGetGpuInstanceRemainingCapacity(self.device, self.small.id) == 0
        refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, nvml.nvmlDeviceCreateGpuInstance, self.device, self.small.id)
        self.check("full")
        taken = [unit for one in self.instances for unit in range(one["placement"]["start"], sum(one["placement"].values()))]
        assert len(taken) == len(set(taken)), f"two instances share memory: {self.instances}"
        # The half that the big one left holds this many: four slices of memory where a small one takes one.
        assert room == len(self.instances) - 1 == self.start, (room, self.start)

    def compute(self):
        """Compute instances: a whole GPU instance, then the big one in two parts."""
        for one in self.instances:
            if one["id"] == self.first:
                continue
            instance = nvml.nvmlDeviceGetGpuInstanceById(self.device, one["id"])
            whole = compute_profiles(instance)[1]
            nvml.nvmlGpuInstanceCreateComputeInstance(instance, whole.id)
            refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, nvml.nvmlGpuInstanceCreateComputeInstance, instance, whole.id)
        self.check("compute instances in the small ones")
        instance = nvml.nvmlDeviceGetGpuInstanceById(self.device, self.first)
        parts = compute_profiles(instance)
        slices = max(parts)
        nvml.nvmlGpuInstanceCreateComputeInstance(instance, parts[1].id)
        refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, nvml.nvmlGpuInstanceCreateComputeInstance, instance, parts[slices].id)
        nvml.nvmlGpuInstanceCreateComputeInstance(instance, parts[slices - 1].id)
        refused(nvml.NVML_ERROR_INSUFFICIENT_RESOURCES, nvml.nvmlGpuInstanceCreateComputeInstance, instance, parts[1].id)
        self.check("two compute instances in one GPU instance")

    def devices(self):
        """MIG devices by UUID: what they are made of is what the profiles said."""
        for one in self.instances:
            made_of = self.big if one["id"] == self.first else self.small
            for compute in one["compute"]:
                device = nvml.nvmlDeviceGetHandleByUUID(compute["uuid"])
                told = nvml.nvmlDeviceGetAttributes(device)
                seen = told.gpuInstanceSliceCount, told.computeInstanceSliceCount, told.memorySizeMB
                # A compute slice is a column of the placement.
                expected = made_of.sliceCount, compute["placement"]["size"], one["memory_mb"]
                assert seen == expected, f"{compute['uuid']}: expected {expected}, saw {seen}"
                assert 0 < told.multiprocessorCount <= made_of.multiprocessorCount
                assert walk.text(nvml.nvmlDeviceGetName(device)).endswith(f"MIG {compute['profile']}")
        nowhere = "MIG-00000000-0000-5000-8000-000000000000"
        refused(nvml.NVML_ERROR_NOT_FOUND, nvml.nvmlDeviceGetHandleByUUID, nowhere)

    def use(self):
        """What a process uses stays, and so does its GPU instance; what it does not use can go."""
        part = ["--gpu", 0, "--instance", self.first, "--compute", 0]
        tools.control("process", "add", *part, "--pid", 4711, "--name", "train", "--memory", 512)
        tools.control("process", "add", "--gpu", 1, "--pid", 4712, "--graphics")
        self.check("processes")
        instance = nvml.nvmlDeviceGetGpuInstanceById(self.device, self.first)
        used, idle = (nvml.nvmlGpuInstanceGetComputeInstanceById(instance, number) for number in (0, 1))
        refused(nvml.NVML_ERROR_IN_USE, nvml.nvmlComputeInstanceDestroy, used)
        refused(nvml.NVML_ERROR_IN_USE, nvml.nvmlGpuInstanceDestroy, instance)
        self.check("nothing that is in use has gone")
        nvml.nvmlComputeInstanceDestroy(idle)
        self.check("what was idle has gone")
        mine = nvml.nvmlDeviceGetHandleByUUID(next(one for one in self.instances if one["id"] == self.first)["compute"][0]["uuid"])
        (process,) = nvml.nvmlDeviceGetComputeRunningProcesses(mine)
        assert (process.pid, process.usedGpuMemory) == (4711, 512 << 20)
        assert nvml.nvmlDeviceGetMemoryInfo(mine).used == 512 << 20
        tools.control("process", "remove", "--pid", 4711)
        self.check("the process has ended")

    def listen(self):
        """XIDs of an instance and of the whole GPU; a change of the layout; and nothing of the other GPU."""
        events = Events(self.device)
        events.expect_none()
        tools.control("xid", 48, "--gpu", 0, "--instance", self.first, "--compute", 0)
        tools.control("xid", 31, "--gpu", 1)
        tools.control("xid", 79, "--gpu", 0)
        events.expect_xid(48, self.first, 0)
        events.expect_xid(79, WHOLE, WHOLE)
        events.expect_none()
        instance = nvml.nvmlDeviceGetGpuInstanceById(self.device, self.first)
        nvml.nvmlComputeInstanceDestroy(nvml.nvmlGpuInstanceGetComputeInstanceById(instance, 0))
        events.expect_change()
        events.expect_none()
        events.close()
        self.check("an empty GPU instance")

    def destroy(self):
        """Each GPU instance is in use until its compute instances are gone."""
        for one in self.instances:
            instance = nvml.nvmlDeviceGetGpuInstanceById(self.device, one["id"])
            if one["compute"]:
                refused(nvml.NVML_ERROR_IN_USE, nvml.nvmlGpuInstanceDestroy, instance)
            for compute in one["compute"]:
                nvml.nvmlComputeInstanceDestroy(nvml.nvmlGpuInstanceGetComputeInstanceById(instance, compute["id"]))
            nvml.nvmlGpuInstanceDestroy(instance)
            refused(nvml.NVML_ERROR_NOT_FOUND, nvml.nvmlDeviceGetGpuInstanceById, self.device, one["id"])
            self.check(f"without GPU instance {one['id']}")
        assert self.instances == []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("small")
    parser.add_argument("big")
    parser.add_argument("start", type=int)
    parser.add_argument("--needs-reset", action="store_true")
    nvml.nvmlInit()
    life = Life(parser.parse_args())
    life.off()
    life.switch(True)
    life.create()
    life.fill()
    life.compute()
    life.devices()
    life.use()
    life.listen()
    life.destroy()
    life.switch(False)
    nvml.nvmlShutdown()


if __name__ == "__main__":
    main()
