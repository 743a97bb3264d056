"""nvitop, a monitor on nvidia-ml-py."""

import os
import re
import sys

from checks.compare import same

# As wide as nvitop wants it for all its columns.
TERMINAL = {"TERM": "dumb", "COLUMNS": "140", "LINES": "60"}
# `| 0:1       1g.5gb @ GI/CI:11/0 |        0B /  4864MiB |`
SLICE = re.compile(r"^\|\s*(\d+):(\d+)\s+(\S+) @ GI/CI:\s*(\d+)/(\d+) \|\s*(\S+) /\s*(\S+) \|", re.MULTILINE)
# `| 0:0    4711 C     N/A  2048MiB ...`, and without a slice for a whole GPU
PROCESS = re.compile(r"^\|\s+(\d+)(?::(\d+))?\s+(\d+) ([CG])\s+\S+\s+(\S+)", re.MULTILINE)
IDLE = "gpus: [{ model: A100-SXM4-40GB, mig: true }, { model: H100-80GB-HBM3, mig: true }, { model: A100-SXM4-40GB }]"


def cases(scenes):
    for scene in scenes:
        if scene.stem in ("demo", "a100-mixed", "busy", "h100", "compute-instances"):
            yield f"nvitop {scene.stem}", scene, shows_the_machine
    yield "nvitop slices made while it could run", IDLE, shows_new_slices


def shows_the_machine(machine):
    """Every MIG device in a line, and every process on it."""
    printed = machine.run(sys.executable, "-m", "nvitop", "--once", "--ascii", **TERMINAL)
    slices = up_to_gaps(machine.slices())
    expected = [
        [gpu["index"], compute["index"], compute["profile"], instance["id"], compute["id"], size(instance["memory_mb"] << 20)]
        for gpu, instance, compute in slices
    ]
    seen = [[int(gpu), int(index), name, int(gi), int(ci), total] for gpu, index, name, gi, ci, _, total in SLICE.findall(printed)]
    same(expected, seen, "nvitop's MIG devices")
    index_of = {(gpu["index"], instance["id"], compute["id"]): str(compute["index"]) for gpu, instance, compute in slices}

    def at(gpu, process):
        return index_of.get((gpu["index"], process["instance"], process["compute"]), "")

    running = [
        [gpu["index"], at(gpu, one), one["pid"], "CG"[one["graphics"]], size(one["memory"])]
        for gpu in machine.show()["gpus"]
        for one in gpu["processes"]
        # Of a GPU with MIG on, nvitop asks the slices alone.
        if one["instance"] is not None or not gpu["mig"]["current"]
    ]
    listed = [[int(gpu), index, int(pid), kind, memory] for gpu, index, pid, kind, memory in PROCESS.findall(printed)]
    same(sorted(running), sorted(listed), "nvitop's processes")
    return printed


def shows_new_slices(machine):
    """Slices made at run time, and a living process that is busy on one of them."""
    if "3g.20gb" in shows_the_machine(machine):
        raise AssertionError("nvitop shows a slice before there is one")
    machine.program("cut", "0:1g.5gb", "0:3g.20gb", "0:2g.10gb", "1:4g.40gb")
    pid = os.getpid()
    busy = machine.show()["gpus"][0]["instances"][0]
    machine.tell("process", "add", "--gpu", 0, "--instance", busy["id"], "--compute", 0, "--pid", pid, "--memory", 512)
    printed = shows_the_machine(machine)
    used = [used for gpu, index, _, gi, _, used, _ in SLICE.findall(printed) if (gpu, int(gi)) == ("0", busy["id"])]
    same(["512.0MiB"], used, "memory used on the busy slice")
    line = next(line for line in printed.splitlines() if f" {pid} C " in line)
    if "No Such Process" in line:
        raise AssertionError(f"nvitop does not know process {pid}: {line}")


def up_to_gaps(slices):
    """nvitop looks no further than the first index that a GPU has no MIG device at."""
    found, expected = [], {}
    for gpu, instance, compute in slices:
        if compute["index"] == expected.setdefault(gpu["index"], 0):
            expected[gpu["index"]] += 1
            found.append((gpu, instance, compute))
    return found


def size(memory):
    """Bytes as nvitop writes them."""
    mib, gib = memory / (1 << 20), memory / (1 << 30)
    if not memory:
        return "0B"
    if mib < 1000:
        return f"{mib:.2f}MiB" if mib < 100 else f"{mib:.1f}MiB"
    return f"{mib:.0f}MiB" if gib < 20 else f"{gib:.2f}GiB" if gib < 100 else f"{gib:.1f}GiB"
