"""The backend's start: quiet, and light without taking anything away from others."""

import os
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
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, encoding="utf-8", check=False)
    assert process.stderr == ""
    assert process.stdout == "started\n"


AFFINE = """
import sys
import numpy as np
from r2reg.config import RegisterConfig
from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume
from r2reg.registration.pair import Pair
from r2reg.registration.pipeline import register

image = Volume(np.random.default_rng(0).random((20, 24), dtype=np.float32), Grid((20, 24), np.eye(3)))
register(Pair(moving=image, fixed=image), RegisterConfig(transform="affine", model="none"))
assert "keras" not in sys.modules
print("registered")
"""


def test_an_affine_registration_starts_no_backend():
    process = subprocess.run([sys.executable, "-c", AFFINE], capture_output=True, encoding="utf-8", check=False)
    assert process.stdout == "registered\n", process.stderr


def test_a_backend_that_cannot_start_is_one_line(tmp_path):
    code = CODE.split("assert")[0]
    environment = {**os.environ, "KERAS_BACKEND": "abacus"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("r2reg.errors.ConfigError: Keras' backend abacus cannot start: ")
    assert last.endswith("set KERAS_BACKEND=tensorflow")
