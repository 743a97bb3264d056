"""What the programs need besides the bindings that they are about."""

import json
import os
import subprocess

from checks.compare import same, visible


def control(*arguments):
    """Runs the fake's control command on the machine that this process sees."""
    command = [os.environ["FAKE_NVML"], *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def scene():
    return json.loads(control("show", "-o", "json"))


def as_shown(seen, phase):
    """What is seen has to be what there is."""
    same(visible(scene()), seen, phase)
