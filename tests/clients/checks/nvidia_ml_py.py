"""NVIDIA's own Python client."""

import functools
import json

from checks.compare import same, visible


def cases(scenes):
    for scene in scenes:
        yield f"pynvml {scene.stem}", scene, sees_the_scene
    for model, (small, big, start, needs_reset) in LIVES.items():
        life = functools.partial(lives, arguments=[small, big, start, *(["--needs-reset"] if needs_reset else [])])
        yield f"pynvml life {model}", f"gpus: [{{ model: {model} }}, {{ model: {model} }}]", life
    for order in GUIDE:
        yield f"pynvml order {','.join(order)}", "gpus: [{ model: A100-SXM4-40GB, mig: true }]", functools.partial(places, order=order)


# A small profile, one that takes half the GPU, where its second place starts, and whether a new mode waits for a reset.
LIVES = {
    "A30": ("1g.6gb", "2g.12gb", 2, True),
    "A100-SXM4-40GB": ("1g.5gb", "3g.20gb", 4, True),
    "H100-80GB-HBM3": ("1g.10gb", "3g.40gb", 4, False),
    "H200": ("1g.18gb", "3g.71gb", 4, False),
}

# Where the driver puts instances that come in this order, on an A100-40GB: the examples in NVIDIA's MIG user guide, "Instance
# Geometry". In the last there is no room for the 3g.20gb, though there would be in another order.
GUIDE = {
    ("1g.5gb", "2g.10gb", "4g.20gb"): [6, 4, 0],
    ("3g.20gb", "1g.5gb", "2g.10gb", "1g.5gb"): [4, 0, 2, 1],
    ("2g.10gb", "1g.5gb", "1g.5gb", "1g.5gb", "1g.5gb", "1g.5gb"): [4, 6, 0, 1, 2, 3],
    ("1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"): None,
}


def sees_the_scene(machine):
    """What it sees is what the scene says, except where the scene says that it cannot be seen."""
    expected = visible(machine.show())
    seen = json.loads(machine.program("walk"))
    for gpu, other in zip(expected["gpus"], seen["gpus"]):
        if other.get("minor", 0) is None:
            gpu["minor"] = None
    same(expected, seen, "nvidia-ml-py sees another machine")


def lives(machine, arguments):
    """A GPU goes through all that can happen to it, from MIG off to MIG off; the program compares after each phase."""
    machine.program("life", *arguments)


def places(machine, order):
    """The driver's own choice of places is the one that NVIDIA's guide shows."""
    starts = GUIDE[order]
    machine.program("cut", *(f"0:{name}" for name in order), code=0 if starts else 1)
    seen = sorted((one["profile"], one["placement"]["start"]) for one in machine.show()["gpus"][0]["instances"])
    if starts:
        same(sorted(zip(order, starts)), seen, "where the driver put them")
    else:
        same(sorted(order[:-1]), [profile for profile, _ in seen], "all but the last")
