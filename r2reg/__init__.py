"""r2reg: diffeomorphic registration of medical images with residual networks.

import r2reg
result = r2reg.register("moving.nii.gz", "fixed.nii.gz")
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`register` of `r2reg.registration.api`, imported when it is asked for: it takes a second."""
    if name == "register":
        from importlib import import_module

        return import_module("r2reg.registration.api").register
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
