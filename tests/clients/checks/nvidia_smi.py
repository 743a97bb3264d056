"""NVIDIA's own nvidia-smi, unmodified, where there is one.

It is neither ours to give away nor to be downloaded: NVIDIA_SMI names one, or the newest in the cache is taken, from
~/.cache/mig-agent/nvidia-smi-VERSION/nvidia-smi. It runs on a library of its own version only, so the scene states that.
"""

import functools
import os
import pathlib
import re
import subprocess

from checks import cache, room, smi_views
from checks.compare import same
from checks.machine import CLIENTS, SECONDS, Skipped

NOTHING_FOUND = "No MIG-enabled devices found."
NO_INSTANCES = r"^No (GPU|compute) instances found"
UNSEEN = {"one-gpu-lost", "slow-driver", "no-gpus"}


def cases(scenes):
    for scene in scenes:
        if scene.stem not in UNSEEN:
            yield f"nvidia-smi {scene.stem}", stated(scene.read_text()), views
        if scene.stem == "busy":
            yield f"nvidia-smi processes {scene.stem}", stated(scene.read_text()), processes
        if scene.stem == "h200-idle":
            yield f"nvidia-smi as on a real H200 {scene.stem}", stated(scene.read_text()), as_measured
    yield "nvidia-smi life A100", stated("gpus: [{ model: A100-SXM4-40GB }]"), functools.partial(
        lives, small="1g.5gb", big="3g.20gb", middle="2g.10gb", needs_reset=True
    )
    yield "nvidia-smi life H200", stated("gpus: [{ model: H200 }]"), functools.partial(
        lives, small="1g.18gb", big="3g.71gb", middle="2g.35gb", needs_reset=False
    )


@functools.cache
def program():
    """The path of nvidia-smi and its version, or None, and why there is none."""
    path = os.environ.get("NVIDIA_SMI")
    if not path:
        kept = cache.folder().glob("nvidia-smi-*/nvidia-smi")
        path = max(kept, key=lambda one: numbers(one.parent.name), default=None)
        if not path:
            return None, f"no nvidia-smi: set NVIDIA_SMI, or put one at {cache.folder()}/nvidia-smi-VERSION/nvidia-smi"
    path = pathlib.Path(path)
    if not os.access(path, os.X_OK):
        return None, f"NVIDIA_SMI: {path} is not a program"
    named = re.fullmatch(r"nvidia-smi-([\d.]+)", path.parent.name)
    if named:
        return path, named[1]
    try:
        told = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=SECONDS, check=False).stdout
    except OSError as error:
        return None, f"{path}: {error.strerror}"
    version = re.search(r"v([\d.]+\d)", told)
    return (path, version[1]) if version else (None, f"{path} does not say its version")


def numbers(name):
    return [int(one) for one in re.findall(r"\d+", name)]


def stated(scene):
    """The scene with nvidia-smi's own version; which NVML that has follows from the driver's."""
    path, version = program()
    if not path:
        return scene
    major = 13 if numbers(version)[0] >= 580 else 12
    kept = [line for line in scene.splitlines() if not re.match(r"(driver|nvml):", line)]
    return "\n".join([f'driver: "{version}"', f'nvml: "{major}.{version}"', *kept])


class Smi:
    def __init__(self, machine):
        self.path, reason = program()
        if not self.path:
            # One that was asked for has to be there.
            raise AssertionError(reason) if os.environ.get("NVIDIA_SMI") else Skipped(reason)
        self.machine = machine

    def __call__(self, *arguments, code=0):
        return self.machine.run(self.path, *arguments, code=code)


def views(machine):
    """Every view shows what there is."""
    smi = Smi(machine)
    there = machine.show()
    lists(smi, there)
    tables(smi, there)
    logs(smi, there)
    profiles(smi, there)
    instances(smi, there)


def slices_of(gpu):
    found = [(instance, compute) for instance in gpu["instances"] for compute in instance["compute"]]
    return sorted(found, key=lambda one: one[1]["index"])


def lists(smi, there):
    """Here nvidia-smi counts MIG devices by itself, gaps in their indices or not."""
    expected = [
        {
            "gpu": [gpu["index"], gpu["name"], gpu["uuid"]],
            "devices": [[compute["profile"], at, compute["uuid"]] for at, (_, compute) in enumerate(slices_of(gpu))],
        }
        for gpu in there["gpus"]
    ]
    same(expected, smi_views.listed(smi("-L")), "nvidia-smi -L")


def tables(smi, there):
    text = smi()
    same([there["driver"]], re.findall(r"Driver Version: (\S+)", text), "the table's driver")
    words = {(False, False): "Disabled", (True, True): "Enabled", (True, False): "Disabled*", (False, True): "Enabled*"}
    expected, seen = [], smi_views.table_gpus(text)
    for gpu, row in zip(there["gpus"], seen):
        used = sum(process["memory"] for process in gpu["processes"]) >> 20
        mode = words[gpu["mig"]["current"], gpu["mig"]["pending"]] if gpu["mig"] else "N/A"
        # A long name is cut off, with dots.
        name = gpu["name"][: len(row[1])]
        expected.append([gpu["index"], name, f"0000{gpu['pci']}", used, gpu["memory"] >> 20, mode])
    same(len(there["gpus"]), len(seen), "the table's GPUs")
    same(expected, seen, "the table's GPUs")
    slices = []
    for gpu in there["gpus"]:
        for instance, compute in slices_of(gpu):
            # The memory is the GPU instance's, shared by its compute instances.
            used = sum(one["memory"] for one in gpu["processes"] if one["instance"] == instance["id"]) >> 20
            slices.append([gpu["index"], instance["id"], compute["id"], compute["index"], used, instance["memory_mb"]])
    same(slices, [row[:6] for row in smi_views.table_slices(text)], "the table's MIG devices")


def logs(smi, there):
    expected = []
    for gpu in there["gpus"]:
        kept = {key: gpu[key] for key in ("uuid", "name", "minor", "pci", "serial", "mig")}
        devices = [
            {"index": compute["index"], "instance": instance["id"], "compute": compute["id"], "memory": instance["memory_mb"]}
            for instance, compute in slices_of(gpu)
        ]
        expected.append(kept | {"memory": gpu["memory"] >> 20, "devices": devices})
    same(expected, smi_views.gpu_log(smi("-q", "-x")), "nvidia-smi -q -x")
    text = smi("-q")
    same([gpu["uuid"] for gpu in there["gpus"]], re.findall(r"^    GPU UUID +: (\S+)$", text, re.MULTILINE), "nvidia-smi -q")
    indices = re.findall(r"^    MIG Device\n        Index +: (\d+)$", text, re.MULTILINE)
    same([str(compute["index"]) for gpu in there["gpus"] for _, compute in slices_of(gpu)], indices, "nvidia-smi -q")


def capable(gpu):
    return gpu["mig"] is not None


def profiles(smi, there):
    """What the GPUs offer, and how much of it is left, by our own count of the places that nvidia-smi names."""
    if not any(map(capable, there["gpus"])):
        return
    offered = smi_views.profiles(smi("mig", "-lgip"))
    places = smi_views.placements(smi("mig", "-lgipp"))
    same(sorted(places), sorted((row[0], row[2]) for row in offered), "profiles of -lgip and of -lgipp")
    same(sorted({gpu["index"] for gpu in there["gpus"] if capable(gpu)}), sorted({row[0] for row in offered}), "GPUs of -lgip")
    for gpu in filter(capable, there["gpus"]):
        own = [row for row in offered if row[0] == gpu["index"]]
        names = {row[1]: row for row in own}
        for instance in gpu["instances"]:
            _, _, number, _, _, gib, _ = names[instance["profile"]]
            same(instance["profile_id"], number, f"id of {instance['profile']}")
            starts, size = places[gpu["index"], number]
            same(size, instance["placement"]["size"], f"size of {instance['profile']}")
            assert instance["placement"]["start"] in starts, f"{instance} is not at one of {starts}"
            assert abs(instance["memory_mb"] / 1024 - float(gib)) < 0.01, f"{instance} has {gib} GiB"
        slices = max(room.slices(name) for name in names)
        for _, name, number, free, total, _, _ in own:
            left = room.left(name, places[gpu["index"], number], total, gpu["instances"], slices)
            same(left, free, f"how many {name} GPU {gpu['index']} has left")


def instances(smi, there):
    cut = [gpu for gpu in there["gpus"] if gpu["instances"]]
    listings = {view: smi("mig", view, code=None) for view in ("-lgi", "-lci", "-lcip", "-lcipp")}
    if not cut:
        for view, text in listings.items():
            if any(gpu["mig"] and gpu["mig"]["current"] for gpu in there["gpus"]):
                assert re.match(NO_INSTANCES, text), f"nvidia-smi mig {view}: {text}"
            else:
                same(NOTHING_FOUND, text.strip(), f"nvidia-smi mig {view}")
        return
    whole, parts = [], []
    for gpu in cut:
        for one in gpu["instances"]:
            whole.append([gpu["index"], one["profile"], one["profile_id"], one["id"], *place(one)])
            for compute in one["compute"]:
                about = [compute["profile"], compute["profile_id"], compute["id"]]
                parts.append([gpu["index"], one["id"], *about, *place(compute)])
    same(sorted(whole), sorted(smi_views.instances(listings["-lgi"])), "nvidia-smi mig -lgi")
    same(sorted(parts), sorted(smi_views.compute_instances(listings["-lci"])), "nvidia-smi mig -lci")
    compute_profiles(cut, smi_views.compute_profiles(listings["-lcip"]), smi_views.compute_placements(listings["-lcipp"]))


def place(one):
    return one["placement"]["start"], one["placement"]["size"]


def compute_profiles(cut, offered, places):
    same(sorted(places), sorted((row[0], row[1], row[3]) for row in offered), "profiles of -lcip and of -lcipp")
    there = {(gpu["index"], one["id"]): one for gpu in cut for one in gpu["instances"]}
    same(sorted(there), sorted({(row[0], row[1]) for row in offered}), "GPU instances of -lcip")
    for gpu, number, name, profile, default, free, total, _ in offered:
        instance = there[gpu, number]
        assert name.endswith(instance["profile"]), f"{name} in {instance['profile']}"
        same(name == instance["profile"], default == "*", f"whether {name} is the default")
        left = room.left_within(places[gpu, number, profile], total, instance["compute"])
        same(left, free, f"how many {name} are left in GPU instance {number} of GPU {gpu}")


def processes(machine):
    """Who uses what. nvidia-smi asks for it by no public function."""
    smi = Smi(machine)
    expected = []
    for gpu in machine.show()["gpus"]:
        for one in gpu["processes"]:
            about = [one["pid"], "CG"[one["graphics"]], one["name"], one["memory"] >> 20]
            expected.append([gpu["index"], or_none(one["instance"]), or_none(one["compute"]), *about])
    text = smi()
    if expected and "No running processes found" in text:
        raise Skipped("the fake tells nvidia-smi of none: the layout of that list is published nowhere")
    same(expected, smi_views.table_processes(text), "the table's processes")


def or_none(number):
    return "N/A" if number is None else number


def as_measured(machine):
    """Two views of an H200 with MIG off are, letter by letter, what a real one printed."""
    smi = Smi(machine)
    for view in ("-lgip", "-lgipp"):
        expected = (CLIENTS / "expected" / f"h200{view}.txt").read_text()
        same(expected.splitlines(), smi("mig", view).splitlines(), f"nvidia-smi mig {view} of a real H200")


def lives(machine, small, big, middle, needs_reset):
    """MIG on, cut in all the ways there are, emptied in order, MIG off; all views are compared after each step."""
    smi = Smi(machine)

    def step(*arguments, says, code=0):
        text = smi(*arguments, code=code)
        same(len(says), sum(bool(re.search(line, text, re.MULTILINE)) for line in says), f"lines like {says} in: {text}")
        views(machine)

    def mode(on):
        pending = f"MIG mode is in pending {'enable' if on else 'disable'} state"
        step("-mig", int(on), says=[pending if needs_reset else f"^{'Enabled' if on else 'Disabled'} MIG Mode for GPU"])
        same({"current": on != needs_reset, "pending": on}, machine.show()["gpus"][0]["mig"], "the mode")
        if needs_reset:
            machine.tell("process", "add", "--gpu", 0, "--pid", 4712)
            step("--gpu-reset", "-i", "0", says=["In use by another client"], code=19)
            machine.tell("process", "remove", "--pid", 4712)
            step("--gpu-reset", "-i", "0", says=["was successfully reset"])
            same({"current": on, "pending": on}, machine.show()["gpus"][0]["mig"], "the mode after a reset")

    step("mig", "-cgi", small, says=[NOTHING_FOUND], code=None)
    mode(True)
    number = {name: identifier for _, name, identifier, *_ in smi_views.profiles(smi("mig", "-lgip"))}
    made = r"^Successfully created GPU instance ID +\d+ on GPU +0 using profile MIG "
    # What has a place of its own comes first: the driver is free to put the other one there.
    step("mig", "-cgi", f"{big}:4,{number[small]}", "-C", says=[made + re.escape(big), made + re.escape(small), "created compute instance"])
    held = {one["profile"]: one for one in machine.show()["gpus"][0]["instances"]}
    same([4, 1, 1], [held[big]["placement"]["start"], len(held[big]["compute"]), len(held[small]["compute"])], "what -cgi -C made")
    step("mig", "-cgi", f"{number[big]}:4", says=["Insufficient Resources"], code=23)
    step("mig", "-cgi", f"{number[big]}:1", says=["Invalid Argument"], code=2)
    step("mig", "-cgi", f"MIG {middle}", says=[made + re.escape(middle)])
    third = next(str(one["id"]) for one in machine.show()["gpus"][0]["instances"] if one["profile"] == middle)
    step("mig", "-cci", "0,0", "-gi", third, says=[r"created compute instance ID +0", r"created compute instance ID +1"])
    step("mig", "-cci", "-gi", third, says=["Insufficient Resources"], code=23)
    step("mig", "-dgi", "-gi", third, says=["In use by another client"], code=19)
    step("mig", "-dci", "-gi", third, "-ci", "1", says=[r"destroyed compute instance ID +1"])
    step("mig", "-dci", "-gi", third, says=[r"destroyed compute instance ID +0"])
    step("mig", "-dgi", "-gi", third, says=[rf"destroyed GPU instance ID +{third} "])
    machine.tell("process", "add", "--gpu", 0, "--instance", held[big]["id"], "--compute", 0, "--pid", 4711, "--memory", 512)
    step("mig", "-dci", "-gi", held[big]["id"], says=["In use by another client"], code=19)
    machine.tell("process", "remove", "--pid", 4711)
    step("mig", "-dci", says=[rf"destroyed compute instance ID +0 from GPU +0 GPU instance ID +{one['id']}$" for one in held.values()])
    step("mig", "-dgi", says=[rf"destroyed GPU instance ID +{one['id']} from GPU +0$" for one in held.values()])
    same([], machine.show()["gpus"][0]["instances"], "after destroying everything")
    mode(False)
