"""Comparing what is seen with what is there."""


def first_difference(expected, seen, path=""):
    """Where the two differ first, in words; None where they are the same."""
    if isinstance(expected, dict) and isinstance(seen, dict):
        if expected.keys() != seen.keys():
            odd = sorted(map(str, expected.keys() ^ seen.keys()))
            return f"{path or 'it'}: only one side has {', '.join(odd)}"
        pairs = [(f"{path}.{key}".lstrip("."), expected[key], seen[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(seen, list):
        if len(expected) != len(seen):
            return f"{path or 'it'}: expected {len(expected)} entries, {expected}, saw {len(seen)}, {seen}"
        pairs = [(f"{path}[{index}]", a, b) for index, (a, b) in enumerate(zip(expected, seen))]
    else:
        return None if expected == seen else f"{path or 'it'}: expected {expected!r}, saw {seen!r}"
    return next(filter(None, (first_difference(a, b, at) for at, a, b in pairs)), None)


def same(expected, seen, what):
    difference = first_difference(expected, seen)
    if difference:
        raise AssertionError(f"{what}: {difference}")


def visible(machine):
    """Of what `fake-nvml show -o json` says, the part that NVML can tell."""
    gpus = []
    for gpu in machine["gpus"]:
        if gpu["lost"]:
            gpus.append({"index": gpu["index"], "lost": True})
        else:
            gpus.append({key: value for key, value in gpu.items() if key != "numa"})
    return {**machine, "gpus": gpus}
