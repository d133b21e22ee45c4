"""The methods that a benchmark compares, each a command that leaves its transforms in a folder.

A new one is a class with `name`, `check`, `command` and `identity`, and a line in `parse_method`.
"""

from __future__ import annotations

import importlib.util
import itertools
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, get_args

from r2reg import __version__
from r2reg.config import AUTO, RefinePreset, RegisterConfig
from r2reg.errors import ConfigError, ModelError
from r2reg.evaluation.peers import PACKAGE_OF, PEERS
from r2reg.evaluation.processes import R2REG
from r2reg.io.tables import Pair
from r2reg.registration.choice import defaults
from r2reg.released import CONFIG_FILE, find_model, shipped

MODULE_OF = {"antspyx": "ants"}  # where a package's module has another name
LEVELS: tuple[str, ...] = get_args(RefinePreset)


class Method(Protocol):
    """What a benchmark asks of a method; instances are small, and can be sent to other machines."""

    @property
    def name(self) -> str:
        """As the user wrote it; a column of the tables."""

    @property
    def uses_gpu(self) -> bool:
        """Whether it computes on a GPU where there is one."""

    def check(self) -> None:
        """Raise ConfigError or ModelError where it cannot run on this machine."""

    def command(self, pair: Pair, folder: Path, threads: int) -> list[str]:
        """The command that registers a pair; what it writes: as `r2reg register`. Empty: there is nothing to do."""

    def identity(self) -> dict[str, Any]:
        """What decides its result besides the pair, JSON; a result made with another is made again."""


@dataclass(frozen=True)
class Identity:
    """No registration at all: where the headers put the images."""

    name: str = "identity"
    uses_gpu: bool = False

    def check(self) -> None:
        """Nothing can be missing."""

    def command(self, pair: Pair, folder: Path, threads: int) -> list[str]:
        """Nothing to run."""
        return []

    def identity(self) -> dict[str, Any]:
        """Its name alone."""
        return {"method": self.name}


@dataclass(frozen=True)
class Peer:
    """A classical method of another package."""

    name: str
    uses_gpu: bool = False

    def check(self) -> None:
        """Its package is there."""
        package = PACKAGE_OF[self.name]
        if importlib.util.find_spec(MODULE_OF.get(package, package)) is None:
            raise ConfigError(
                f"--method {self.name}: {package} is not installed; pip install {package}, or leave it out"
            )

    def command(self, pair: Pair, folder: Path, threads: int) -> list[str]:
        """`python -m r2reg.evaluation.peers`."""
        program = [sys.executable, "-m", "r2reg.evaluation.peers", self.name]
        return [*program, str(pair.moving), str(pair.fixed), "-o", str(folder), "--threads", str(threads)]

    def identity(self) -> dict[str, Any]:
        """With its package's version."""
        package = PACKAGE_OF[self.name]
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        return {"method": self.name, package: found}


@dataclass(frozen=True)
class R2Reg:
    """`r2reg register` with a model or none, and options.

    Attributes:
        model: a folder, the name of one that ships, auto or none.
        options: of `r2reg register`, such as ("--refine", "fast").
    """

    name: str
    model: str = "none"
    options: tuple[str, ...] = ()

    @property
    def uses_gpu(self) -> bool:
        """Unless told to stay on the CPU; an affine alone is found there anyway."""
        given = set(itertools.pairwise(self.options))
        return not given & {("--device", "cpu"), ("--transform", "affine")}

    @classmethod
    def of_options(cls, name: str, words: Sequence[str]) -> R2Reg:
        """From options of `r2reg register`, --model among them; --name=value counts as --name value."""
        model = RegisterConfig.model
        rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
        while "--model" in rest[:-1]:
            place = rest.index("--model")
            model = rest[place + 1]
            del rest[place : place + 2]
        return cls(name, _whole_path(model), tuple(rest))

    def check(self) -> None:
        """The model is there."""
        if self.model not in (AUTO, "none"):
            try:
                find_model(self.model)
            except ModelError as error:
                raise ConfigError(f"--method {error}; methods are {KNOWN}") from None

    def command(self, pair: Pair, folder: Path, threads: int) -> list[str]:
        """`r2reg register`; masks are given to it, labels and points are not."""
        command = [*R2REG, "register", str(pair.moving), str(pair.fixed), "-o", str(folder), "--overwrite"]
        for option, mask in (("--moving-mask", pair.moving_mask), ("--fixed-mask", pair.fixed_mask)):
            command += [option, str(mask)] if mask else []
        return [*command, "--model", self.model, *LEAN, "--threads", str(threads), *self.options]

    def identity(self) -> dict[str, Any]:
        """With the model's digest and r2reg's version."""
        found: dict[str, Any] = {"method": "r2reg", "options": list(self.options), "r2reg": __version__}
        if self.model != "none":
            from r2reg.io.files import sha256

            folders = [shipped(name) for name in defaults()] if self.model == AUTO else [find_model(self.model)]
            weights = [path for folder in folders for path in sorted(folder.glob("**/model.weights.h5"))]
            found["model"] = [sha256(path) for path in weights]
        return found


LEAN = ("--formats", "itk", "--no-report")  # what is judged, and nothing else
KNOWN = (
    f"identity, affine, {', '.join(PEERS)}, r2reg, auto, a model's name or folder, each of the last three with "
    f"+{', +'.join(LEVELS)}, and NAME=OPTIONS of `r2reg register`"
)


def parse_method(text: str) -> Method:
    """A method from its name on the command line.

    identity; affine, which is r2reg's own; the names of PEERS; r2reg, refinement alone; auto, what `register` does by
    itself; a model's name or folder; the last three with +LEVEL of refinement, such as r2reg+fast or runs/brain+none;
    and NAME=OPTIONS, "ngf=--similarity ngf".

    Raises:
        ConfigError: none of these.
    """
    if text == "identity":
        return Identity()
    if text in PEERS:
        return Peer(text)
    if text == "affine":
        return R2Reg(text, options=("--transform", "affine"))
    name, given, options = text.partition("=")
    if given:
        if not name or not options.strip():
            raise ConfigError(f"--method {text}: name options of `r2reg register`, as in ngf=--similarity ngf")
        return R2Reg.of_options(name, shlex.split(options))
    stem, plus, level = text.rpartition("+")
    if not plus or level not in LEVELS:
        stem, level = text, ""
    refine = ("--refine", level) if level else ()
    return R2Reg(text, "none" if stem == "r2reg" else _whole_path(stem), refine)


def _whole_path(model: str) -> str:
    """A model's folder, to be found from wherever a job runs."""
    is_folder = model not in (AUTO, "none") and (Path(model) / CONFIG_FILE).is_file()
    return str(Path(model).absolute()) if is_folder else model
