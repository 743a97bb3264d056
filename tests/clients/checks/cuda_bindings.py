"""NVML in NVIDIA's cuda-bindings: compiled from the header, where nvidia-ml-py is written by hand."""

import json

from checks.compare import same, visible

SCENE = "gpus: [{ model: A100-SXM4-80GB, mig: true }, { model: H200 }, { model: H100-NVL, mig: true }]"


def cases(scenes):
    for scene in scenes:
        if scene.stem not in ("slow-driver", "one-gpu-lost"):
            yield f"cuda-bindings {scene.stem}", scene, sees_the_scene
    yield "cuda-bindings cuts", SCENE, cuts


def sees_the_scene(machine):
    expected = visible(machine.show())
    for gpu in expected["gpus"]:
        for process in gpu["processes"]:
            del process["name"]
        for instance in gpu["instances"]:
            # Measured on an H200: the version of a profile's description that these bindings ask for names none.
            del instance["profile"]
    same(expected, json.loads(machine.program("compiled", "walk")), "cuda-bindings sees another machine")


def cuts(machine):
    """It creates what it is told to, sees it, and takes all of it away again."""
    empty = machine.show()
    machine.program("compiled", "cut", "0:9:4", "0:19", "0:14", "2:20", "2:5:0")
    sees_the_scene(machine)
    seen = {(gpu["index"], instance["profile"]) for gpu, instance, _ in machine.slices()}
    wanted = {(0, "3g.40gb"), (0, "1g.10gb"), (0, "2g.20gb"), (2, "1g.12gb+me"), (2, "4g.47gb")}
    same(sorted(wanted), sorted(seen), "what was to be created")
    starts = {instance["profile"]: instance["placement"]["start"] for _, instance, _ in machine.slices()}
    same([4, 0], [starts["3g.40gb"], starts["4g.47gb"]], "where it was to be")
    machine.program("compiled", "clear")
    same(empty, machine.show(), "after clearing")
