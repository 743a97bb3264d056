"""A pretended machine of a check's own."""

import json
import os
import pathlib
import subprocess
import sys

# Generous: it ends a child that hangs, it measures nothing.
SECONDS = 120
CLIENTS = pathlib.Path(__file__).resolve().parent.parent


class Skipped(Exception):
    """A check that cannot be made here, and why."""


class Fake:
    """The library under test and its control command."""

    def __init__(self, library, control):
        self.library = library
        self.control = control


class Machine:
    """Its state and scene in a folder, in which the loader also finds the library by the driver's name."""

    def __init__(self, folder, fake, scene):
        """`scene` is a file, or the text of one."""
        self.folder = pathlib.Path(folder)
        self.fake = fake
        if not isinstance(scene, pathlib.Path):
            (self.folder / "scene.yaml").write_text(scene)
            scene = self.folder / "scene.yaml"
        libraries = self.folder / "lib"
        libraries.mkdir()
        (libraries / "libnvidia-ml.so.1").symlink_to(fake.library)
        self.environment = os.environ | {
            "FAKE_NVML_SCENE": str(scene),
            "FAKE_NVML_STATE": str(self.folder / "state"),
            "FAKE_NVML": str(fake.control),
            "LD_LIBRARY_PATH": str(libraries),
            "PYTHONPATH": str(CLIENTS),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, *command, code=0, **environment):
        """What the command prints; it has to end with this code, if one is stated."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if code not in (None, done.returncode):
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
            said = " / ".join(line.strip() for line in lines)
            words = " ".join(str(word) for word in command[1:])
            raise AssertionError(f"{pathlib.Path(str(command[0])).name} {words}: exit code {done.returncode}: {said}")
        return done.stdout

    def program(self, name, *arguments, code=0):
        """What a program of ours, made of other people's bindings, prints."""
        return self.run(sys.executable, "-m", f"programs.{name}", *arguments, code=code)

    def tell(self, *arguments):
        return self.run(self.fake.control, *arguments)

    def show(self):
        return json.loads(self.tell("show", "-o", "json"))

    def slices(self):
        """GPU, GPU instance and compute instance of each MIG device, in the order of their indices."""
        found = []
        for gpu in self.show()["gpus"]:
            own = [(gpu, instance, compute) for instance in gpu["instances"] for compute in instance["compute"]]
            found += sorted(own, key=lambda one: one[2]["index"])
        return found
