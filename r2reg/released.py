"""Models that ship with r2reg: a folder each, found by name and checked against the checksums that ship with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from r2reg.errors import ModelError
from r2reg.io.files import sha256

CHECKSUMS = "SHA256SUMS"  # as sha256sum writes it, paths relative to the folder of all models
CONFIG_FILE, CARD_FILE, WEIGHTS = "config.json", "README.md", "model.weights.h5"


@dataclass(frozen=True)
class Release:
    """A model that ships.

    Attributes:
        summary: the card's first sentence. megabytes: of its weights.
    """

    name: str
    folder: Path
    network: str
    spacing: tuple[float, ...]
    summary: str
    megabytes: float


def shipped_folder() -> Path:
    """Where the models lie."""
    return Path(str(resources.files("r2reg.models")))


def names() -> list[str]:
    """Of the models that ship."""
    return sorted(path.parent.name for path in shipped_folder().glob(f"*/{CONFIG_FILE}"))


def find_model(text: str | Path) -> Path:
    """A model's folder: one that exists, else a model that ships, by its name; a shipped one's files are checked.

    Raises:
        ModelError: neither; or a file that is not the one that shipped.
    """
    if (Path(text) / CONFIG_FILE).is_file():
        folder = Path(text).resolve()
        if any(file.startswith(f"{folder.name}/") for file in _expected(folder.parent)):  # as in a clone
            verify(folder.name, folder.parent)
        return Path(text)
    known = names()
    if str(text) not in known:
        if Path(text).is_dir():
            raise ModelError(f"{text}: is no folder of a model (it holds no {CONFIG_FILE})")
        listed = f"known are {', '.join(known)}" if known else "none ships with this version"
        raise ModelError(f"{text}: is neither a folder nor a model that ships; {listed}")
    return shipped(str(text))


def shipped(name: str) -> Path:
    """The folder of a model that ships, whatever else has its name; its files are checked.

    Raises:
        ModelError: as `verify`.
    """
    verify(name)
    return shipped_folder() / name


def verify(name: str, root: Path | None = None) -> None:
    """Compare a model's files with the checksums.

    Args:
        root: the folder of all models; by default where those lie that came with this installation.
    Raises:
        ModelError: a file is missing, altered or unknown.
    """
    root = root or shipped_folder()
    expected = _expected(root)
    needed = [path for path in (root / name).rglob("*") if path.name in (CONFIG_FILE, WEIGHTS)]
    here = {path.relative_to(root).as_posix() for path in needed}
    for file in sorted(here | {path for path in expected if path.startswith(f"{name}/")}):
        if file not in here:
            raise ModelError(f"{root / file}: is missing; install r2reg again")
        if expected.get(file) != sha256(root / file):
            raise ModelError(f"{root / file}: is not the file that shipped (its SHA-256 differs); install r2reg again")


def _expected(root: Path) -> dict[str, str]:
    """The digests of files that a folder's checksums name."""
    if not (root / CHECKSUMS).is_file():
        return {}
    lines = (root / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[1].removeprefix("*"): pair[0] for pair in pairs if len(pair) == 2}


def describe(name: str) -> Release:
    """What is known of a model that ships.

    Raises:
        ModelError: no such model.
    """
    if name not in names():
        raise ModelError(f"{name}: no such model ships; known are {', '.join(names()) or 'none'}")
    folder = shipped_folder() / name
    network = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["network"]
    return Release(
        name=name,
        folder=folder,
        network=network["network"],
        spacing=tuple(network["spacing"]),
        summary=_first_sentence(card(name)),
        megabytes=sum(path.stat().st_size for path in folder.rglob(WEIGHTS)) / 1e6,
    )


def card(name: str) -> str:
    """A model's card, Markdown."""
    return (shipped_folder() / name / CARD_FILE).read_text(encoding="utf-8")


def _first_sentence(markdown: str) -> str:
    text = " ".join(line for line in markdown.splitlines() if line and not line.startswith("#"))
    return text.partition(". ")[0].rstrip(".")
