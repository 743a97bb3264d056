"""Reading what nvidia-smi prints: each view as plain numbers and names."""

import re
from xml.etree import ElementTree


def rows(pattern, text):
    """Every line that is like this, numbers as numbers."""
    found = re.findall(pattern, text, re.MULTILINE)
    return [[int(one) if one.isdigit() else one for one in (row if isinstance(row, tuple) else [row])] for row in found]


def listed(text):
    """`-L`: GPUs with index, name and UUID; after each its MIG devices with profile, index and UUID."""
    gpu = r"^GPU (\d+): (.+) \(UUID: (GPU-\S+)\)$"
    device = r"^  MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-\S+)\)$"
    found = []
    for line in text.splitlines():
        if rows(gpu, line):
            found.append({"gpu": rows(gpu, line)[0], "devices": []})
        elif rows(device, line) and found:
            found[-1]["devices"] += rows(device, line)
        elif line.strip():
            raise AssertionError(f"nvidia-smi -L: what is {line!r}?")
    return found


def table_gpus(text):
    """The plain table: index, start of the name, PCI address, used and all memory in MiB, MIG mode."""
    return [
        [index, name.rstrip("."), address.lower(), used, total, mode]
        for index, name, address, used, total, mode in rows(
            r"^\|\s+(\d+)  (.+?)\s+(?:On|Off)\s+\|\s+([0-9A-F:.]+) \w+ \|.*\|\n"
            r"\|.*\|\s+(\d+)MiB /\s*(\d+)MiB \|.*\|\n"
            r"\|.*\|.*\|\s+(\S+) \|$",
            text,
        )
    ]


def table_slices(text):
    """The plain table: GPU, GPU instance, compute instance, MIG device, used and all memory in MiB, SMs."""
    return rows(r"^\|\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)  \|\s+(\d+)MiB /\s*(\d+)MiB\s+\|\s*(\d+)\s+\S+ \|.*\|$", text)


def table_processes(text):
    """The plain table: GPU, GPU and compute instance, process, kind, name, memory in MiB."""
    return rows(r"^\|\s+(\d+)\s+(\d+|N/A)\s+(\d+|N/A)\s+(\d+)\s+(\S+)\s+(\S.*?)\s+(\d+)MiB \|$", text)


def gpu_log(text):
    """`-q -x`, as far as `fake-nvml show` knows it."""
    return [one_gpu(gpu) for gpu in ElementTree.fromstring(text).findall("gpu")]


def one_gpu(gpu):
    def of(path, parent=gpu):
        return parent.findtext(path, "").strip()

    modes = {"Enabled": True, "Disabled": False}
    mode = {word: modes.get(of(f"mig_mode/{word}_mig")) for word in ("current", "pending")}
    return {
        "uuid": of("uuid"),
        "name": of("product_name"),
        "minor": int(of("minor_number")),
        "pci": of("pci/pci_bus_id").lower().removeprefix("0000"),
        "serial": of("serial"),
        "memory": int(of("fb_memory_usage/total").removesuffix(" MiB")),
        "mig": None if mode["current"] is None else mode,
        "devices": [
            {
                "index": int(of("index", device)),
                "instance": int(of("gpu_instance_id", device)),
                "compute": int(of("compute_instance_id", device)),
                "memory": int(of("fb_memory_usage/total", device).removesuffix(" MiB")),
            }
            for device in gpu.findall("mig_devices/mig_device")
        ],
    }


def profiles(text):
    """`mig -lgip`: GPU, profile, its id, free, total, GiB, and SMs."""
    return rows(r"^\|\s+(\d+)  MIG (\S+)\s+(\d+)\s+(\d+)/(\d+)\s+([\d.]+)\s+(?:No|Yes)\s+(\d+)\s+\d+\s+\d+\s+\|$", text)


def placements(text):
    """`mig -lgipp`: starts and size by GPU and profile id."""
    found = rows(r"^GPU\s+(\d+) Profile ID\s+(\d+) Placements?\s*: \{([\d,]+)\}:(\d+)$", text)
    return {(gpu, profile): (starts_of(starts), size) for gpu, profile, starts, size in found}


def compute_placements(text):
    """`mig -lcipp`: starts and size by GPU, GPU instance and profile id."""
    found = rows(r"^GPU\s+(\d+) GI\s+(\d+) Profile ID\s+(\d+) Placements?\s*: \{([\d,]+)\}:(\d+)$", text)
    return {(gpu, instance, profile): (starts_of(starts), size) for gpu, instance, profile, starts, size in found}


def starts_of(text):
    return [int(one) for one in str(text).split(",")]


def instances(text):
    """`mig -lgi`: GPU, profile, its id, GPU instance, start, size."""
    return rows(r"^\|\s+(\d+)  MIG (\S+)\s+(\d+)\s+(\d+)\s+(\d+):(\d+)\s+\|$", text)


def compute_profiles(text):
    """`mig -lcip`: GPU, GPU instance, profile, its id, `*` if it is the default, free, total, SMs."""
    return rows(r"^\|\s+(\d+)\s+(\d+)\s+MIG (\S+)\s+(\d+)(\*?)\s+(\d+)/(\d+)\s+(\d+)\s+\d+\s+\d+\s+\d+\s+\|$", text)


def compute_instances(text):
    """`mig -lci`: GPU, GPU instance, profile, its id, compute instance, start, size."""
    return rows(r"^\|\s+(\d+)\s+(\d+)\s+MIG (\S+)\s+(\d+)\s+(\d+)\s+(\d+):(\d+)\s+\|$", text)
