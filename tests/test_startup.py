"""The backend's start: quiet, and light without taking anything away from others."""

import subprocess
import sys

CODE = """
import gc, importlib.util, sys
from r2reg.startup import UNUSED_BY_KERAS, start_backend

start_backend("cpu", seed=3)
assert "keras" in sys.modules
assert not set(UNUSED_BY_KERAS) & set(sys.modules)
assert all(importlib.util.find_spec(name) for name in ("numpy", "matplotlib"))
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 100_000
kept = [object() for _ in range(3)]
start_backend("cpu", seed=3)  # a second start freezes nothing more
assert gc.get_freeze_count() <= frozen
print("started")
"""


def test_start_is_quiet_and_light():
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert process.stderr == ""
    assert process.stdout == "started\n"
