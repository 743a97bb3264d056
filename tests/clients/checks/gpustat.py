"""gpustat, a monitor on nvidia-ml-py."""

import json
import os
import sys

from checks.compare import same

SCENE = """
gpus:
  - { model: A100-SXM4-40GB, instances: [{ profile: 3g.20gb }] }
  - { model: H200 }
  - { model: T4 }
"""


def cases(scenes):
    for scene in scenes:
        if scene.stem in ("demo", "a100-mixed", "busy", "h200-idle", "not-mig-capable"):
            yield f"gpustat {scene.stem}", scene, lists_the_gpus
    yield "gpustat processes", SCENE, lists_processes


def lists_the_gpus(machine):
    listed = json.loads(machine.run(sys.executable, "-m", "gpustat", "--json"))
    there = machine.show()
    same(there["driver"], listed["driver_version"], "gpustat's driver version")
    expected = [
        {"index": gpu["index"], "uuid": gpu["uuid"], "name": gpu["name"], "memory.total": gpu["memory"] >> 20, "memory.used": used(gpu)}
        for gpu in there["gpus"]
    ]
    seen = [{key: gpu[key] for key in expected[0]} for gpu in listed["gpus"]]
    same(expected, seen, "gpustat's GPUs")
    return listed["gpus"]


def lists_processes(machine):
    """gpustat lists processes that are alive, of whole GPUs and of slices alike."""
    pid = os.getpid()
    busy = machine.show()["gpus"][0]["instances"][0]["id"]
    machine.tell("process", "add", "--gpu", 0, "--instance", busy, "--compute", 0, "--pid", pid, "--memory", 512)
    machine.tell("process", "add", "--gpu", 1, "--pid", pid, "--memory", 768)
    listed = lists_the_gpus(machine)
    seen = [[(one["pid"], one["gpu_memory_usage"]) for one in gpu["processes"]] for gpu in listed]
    same([[(pid, 512)], [(pid, 768)], []], seen, "gpustat's processes")


def used(gpu):
    return sum(process["memory"] for process in gpu["processes"]) >> 20
