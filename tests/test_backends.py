"""The marked tests once more on JAX and PyTorch, where they are installed.

A process of its own each, because Keras takes its backend when it is first imported.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_marked_tests_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f'{backend} is not installed; pip install ".[backends]"')
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "backends", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert process.returncode == 0, process.stdout[-5000:]
