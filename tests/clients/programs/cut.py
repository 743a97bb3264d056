"""Cuts GPUs with nvidia-ml-py as told: `0:3g.20gb 0:1g.5gb 1:7g.141gb`, each with its whole compute instance."""

import sys

import pynvml as nvml

from programs.life import compute_profiles, profile


def main():
    nvml.nvmlInit()
    for wish in sys.argv[1:]:
        index, name = wish.split(":")
        device = nvml.nvmlDeviceGetHandleByIndex(int(index))
        instance = nvml.nvmlDeviceCreateGpuInstance(device, profile(device, name).id)
        parts = compute_profiles(instance)
        nvml.nvmlGpuInstanceCreateComputeInstance(instance, parts[max(parts)].id)
    nvml.nvmlShutdown()


if __name__ == "__main__":
    main()
