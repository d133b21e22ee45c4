#!/usr/bin/env python3
"""Run the Dockerfile's steps where there is no container engine, as far as that can be honest.

    .ci/dockerfile_steps.py FOLDER

FOLDER (new) becomes the image's file system: WORKDIR and COPY work below it, RUN lines run there under
`sh -e` with a fresh virtual environment in place of the base Python, then ENTRYPOINT runs with CMD and
with `--version`. Build arguments keep their defaults (the CPU image). Not checked here: the base image, USER,
the GPU variant.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# Any other command would act on this machine instead of on an image.
ALLOWED_RUN = "python -m pip install "


def instructions(text: str) -> list[tuple[str, str]]:
    """(NAME, arguments) of each instruction, comments dropped and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), arguments.strip()) for name, arguments in pairs]


class Image:
    """State of the build: the folder, the working directory below it and the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workdir = folder
        self.command: dict[str, list[str]] = {"ENTRYPOINT": [], "CMD": []}
        keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        self.environment = {**keep, "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"}

    def step(self, name: str, arguments: str) -> None:
        """Carry out one instruction."""
        if name == "FROM":
            venv.create(self.folder / "venv", with_pip=True)
        elif name in ("ARG", "ENV"):
            self.environment |= dict(part.split("=", 1) for part in shlex.split(arguments))
        elif name == "WORKDIR":
            self.workdir = self.folder / arguments.lstrip("/")
            self.workdir.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            self.copy(*shlex.split(arguments))
        elif name == "RUN":
            self.run(arguments)
        elif name in self.command:
            self.command[name] = json.loads(arguments)
        elif name != "USER":
            sys.exit(f"Dockerfile: {name} is not known to this script; teach it")

    def copy(self, *arguments: str) -> None:
        """COPY: a folder's contents go to the destination, files go into it."""
        *sources, destination = arguments
        for source in (CHECKOUT / name for name in sources):
            target = self.workdir / destination
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(source, target / source.name if destination.endswith("/") else target)

    def run(self, line: str) -> None:
        """RUN: the line as it stands, through sh."""
        if not line.startswith(ALLOWED_RUN) or re.search(r"[;&|]", line):
            sys.exit(f"Dockerfile: RUN {line}: only '{ALLOWED_RUN}...' runs outside a container")
        subprocess.run(["/bin/sh", "-ec", line], cwd=self.workdir, env=self.environment, check=True)

    def start(self, *arguments: str) -> None:
        """What `docker run IMAGE [arguments]` would start."""
        program, *fixed = self.command["ENTRYPOINT"]
        installed = self.folder / "venv" / "bin" / program
        call = [str(installed), *fixed, *(arguments or self.command["CMD"])]
        subprocess.run(call, cwd=self.workdir, env=self.environment, check=True)


def main() -> None:
    """Build below the folder named on the command line, then start what the image would start."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    image = Image(folder)
    for name, arguments in instructions((CHECKOUT / "Dockerfile").read_text(encoding="utf-8")):
        print(f"--- {name} {arguments}", flush=True)
        image.step(name, arguments)
    image.start()
    image.start("--version")


if __name__ == "__main__":
    main()
