"""NVIDIA's Go bindings, go-nvml and go-nvlib, doing what mig-parted does with them."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile

from checks import cache
from checks.compare import same
from checks.machine import CLIENTS, Skipped

SOURCES = CLIENTS / "go"
MINUTES = 15

# mig-parted's own example layouts, with each model's names: they take the whole GPU, or a part, in any order.
LAYOUTS = {
    "A100-SXM4-40GB": [
        {"1g.5gb": 7},
        {"2g.10gb": 3},
        {"3g.20gb": 2},
        {"7g.40gb": 1},
        {"1g.5gb": 2, "2g.10gb": 1, "3g.20gb": 1},
        {"1g.5gb+me": 1, "1g.10gb": 2, "2g.10gb": 1},
    ],
    "H200": [
        {"1g.18gb": 7},
        {"3g.71gb": 2},
        {"7g.141gb": 1},
        {"1g.18gb": 2, "2g.35gb": 1, "3g.71gb": 1},
        {"1g.18gb+me": 1, "1g.35gb": 1, "4g.71gb": 1},
    ],
    "A30": [{"1g.6gb": 4}, {"2g.12gb": 2}, {"1g.6gb": 2, "2g.12gb": 1}, {"4g.24gb": 1}],
}
PROFILES = {
    "A100-SXM4-40GB": ["1g.10gb", "1g.5gb", "1g.5gb+me", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"],
    "H200": ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"],
    "A30": ["1g.6gb", "1g.6gb+me", "2g.12gb", "2g.12gb+me", "4g.24gb"],
}
RESET_REQUIRED, DONE = "GPU requires reset", "Success"


def cases(scenes):
    for scene in scenes:
        if scene.stem not in ("slow-driver", "one-gpu-lost"):
            yield f"go export {scene.stem}", scene, exports
    for model, layouts in LAYOUTS.items():
        applying = functools.partial(applies, layouts=layouts, profiles=PROFILES[model])
        yield f"go apply {model}", f"gpus: [{{ model: {model} }}, {{ model: T4 }}]", applying


@functools.cache
def program():
    """The path of the built program, or None, and why there is none."""
    go = shutil.which("go")
    if not go:
        return None, "Go is missing (https://go.dev/dl)"
    environment = os.environ | {"GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "1"}
    version = subprocess.run([go, "version"], capture_output=True, cwd=SOURCES, env=environment, timeout=MINUTES * 60, check=False)
    if version.returncode:
        return None, f"this Go does not do: {last_line(version.stderr)}"
    digest = hashlib.sha256(version.stdout)
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    built = cache.folder() / "clients" / f"go-{digest.hexdigest()[:16]}"
    if built.exists():
        return built, None
    built.parent.mkdir(parents=True, exist_ok=True)
    download = [go, "mod", "download"]
    modules = subprocess.run(download, capture_output=True, cwd=SOURCES, env=environment, timeout=MINUTES * 60, check=False)
    if modules.returncode:
        return None, f"NVIDIA's Go modules are not to be had: {last_line(modules.stderr)}"
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        build = [go, "build", "-o", f"{folder}/program", "."]
        done = subprocess.run(build, capture_output=True, cwd=SOURCES, env=environment, timeout=MINUTES * 60, check=False)
        assert done.returncode == 0, f"go build: {done.stderr.decode()[-2000:]}"
        os.replace(f"{folder}/program", built)
    return built, None


def last_line(text):
    return (text.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]


def run(machine, *arguments, code=0):
    path, reason = program()
    if not path:
        raise Skipped(reason)
    return machine.run(path, *arguments, code=code)


def exports(machine):
    """What the libraries see is what there is."""
    seen = json.loads(run(machine, "export"))
    expected = []
    for gpu in machine.show()["gpus"]:
        devices = [
            {key: compute[key] for key in ("index", "uuid", "profile")} | {"instance": instance["id"], "compute": compute["id"]}
            for instance in gpu["instances"]
            for compute in instance["compute"]
        ]
        expected.append({
            "index": gpu["index"],
            "uuid": gpu["uuid"],
            "name": gpu["name"],
            "pci": gpu["pci"],
            "capable": gpu["mig"] is not None,
            "enabled": bool(gpu["mig"] and gpu["mig"]["current"]),
            "layout": counts(device["profile"] for device in devices),
            "devices": sorted(devices, key=lambda device: device["index"]),
        })
    same(expected, [{key: gpu[key] for key in gpu if key != "profiles"} for gpu in seen], "the Go bindings see another machine")
    return seen


def counts(names):
    found = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def applies(machine, layouts, profiles):
    """MIG on, one layout after the other, and MIG off again, on the first GPU; the second has no MIG."""
    # go-nvlib has some names twice: it guesses which compute instances there may be.
    offered = {name for name in exports(machine)[0]["profiles"] if "c." not in name}
    same(profiles, sorted(offered), "the profiles that the GPU offers")
    switch(machine, True)
    for layout in layouts:
        run(machine, "apply", json.dumps({0: layout}))
        run(machine, "assert", json.dumps({0: layout}))
        same(layout, exports(machine)[0]["layout"], "what was applied")
        other = {name: count + 1 for name, count in layout.items()}
        run(machine, "assert", json.dumps({0: other}), code=1)
    too_much = {profiles[-1]: 2}
    run(machine, "apply", json.dumps({0: too_much}), code=1)
    for senseless in ({0: {"9g.999gb": 1}}, {0: {"1 g.5gb": 1}}, {1: {profiles[0]: 1}}, {7: {profiles[0]: 1}}):
        run(machine, "apply", json.dumps(senseless), code=2)
    run(machine, "clear")
    run(machine, "assert", json.dumps({0: {}}))
    same([], machine.show()["gpus"][0]["instances"], "after clearing")
    switch(machine, False)


def switch(machine, on):
    """The mode, and the reset where the driver asks for one: on Ampere, and only there."""
    activation = json.loads(run(machine, "mode", "1" if on else "0"))
    ampere = machine.show()["gpus"][0]["name"].startswith("NVIDIA A")
    same({"0": RESET_REQUIRED if ampere else DONE}, activation, "what the new mode needs")
    same({"current": on != ampere, "pending": on}, machine.show()["gpus"][0]["mig"], "the mode after setting it")
    if ampere:
        machine.tell("reset-gpu", 0)
    same(on, exports(machine)[0]["enabled"], "the mode in the end")
