"""What is kept between runs, outside the checkout."""

import os
import pathlib


def folder():
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "mig-agent"
