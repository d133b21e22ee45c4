#!/usr/bin/env python3
"""Check an installed wheel from outside the checkout: `python -P smoke_wheel.py CHECKOUT`.

Every module of the checkout is in the installed package and can be imported, and so is every model file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# In the checkout -> installed.
FOLDERS = {"r2reg": "r2reg"} | {name: f"r2reg/{name}" for name in ("cli", "models", "data_manifests")}
DATA = (".py", ".typed", ".json", ".md", ".h5", ".j2")


def files(folder: Path, below: str) -> set[str]:
    """Paths of the package's files under `folder`, written as they are when installed."""
    found = (p for p in folder.rglob("*") if p.suffix in DATA and "__pycache__" not in p.parts)
    return {f"{below}/{p.relative_to(folder).as_posix()}" for p in found}


def main() -> None:
    """Compare, import everything, print the modules; exit with a message at the first difference."""
    checkout = Path(sys.argv[1]).resolve()
    import r2reg

    installed = Path(r2reg.__file__).resolve().parent
    if checkout in installed.parents:
        sys.exit(f"imported from the checkout, not from the wheel: {installed}")
    expected = set().union(*(files(checkout / here, there) for here, there in FOLDERS.items()))
    present = files(installed, "r2reg")
    if expected != present:
        sys.exit(f"missing from the wheel: {expected - present}; only in the wheel: {present - expected}")
    if importlib.metadata.version("r2reg") != r2reg.__version__:
        sys.exit("the wheel's version is not r2reg.__version__")
    if any(importlib.util.find_spec(name) for name in ("cli", "models", "data_manifests")):
        sys.exit("cli, models or data_manifests is installed as a top-level package")
    names = sorted(path[:-3].replace("/", ".") for path in expected if path.endswith(".py"))
    for name in (n for n in names if not n.endswith(".__main__")):
        importlib.import_module(name.removesuffix(".__init__"))
    print(f"r2reg {r2reg.__version__} from {installed}: {len(names)} modules", *names, sep="\n  ")


if __name__ == "__main__":
    main()
