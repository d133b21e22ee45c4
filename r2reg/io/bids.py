"""Names and sidecars of BIDS derivatives, inferred from the names of BIDS inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2reg import __version__
from r2reg.errors import ConfigError
from r2reg.io.files import atomic_path

VERSION = "1.9.0"
DATASET = "dataset_description.json"
FUNCTIONAL = ("bold", "boldref", "sbref", "cbv")
RELATIVES = ("desc", "res", "den", "label")  # entities that say what was done to an image, not which one it is


@dataclass(frozen=True)
class Name:
    """sub-01_ses-1_T1w.nii.gz: entities {"sub": "01", "ses": "1"}, suffix T1w."""

    entities: Mapping[str, str]
    suffix: str

    @property
    def stem(self) -> str:
        """The entities that say which image it is, as in a file's name."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items() if key not in (*RELATIVES, "space"))


@dataclass(frozen=True)
class Derivative:
    """Where the result of a registration goes.

    Attributes:
        folder: below the data set's root.
        names: of the files of a run folder, as `registration.writing` names them.
        spaces: labels of moving's and fixed's space.
    """

    folder: Path
    names: Mapping[str, str]
    spaces: tuple[str, str]

    @property
    def files(self) -> list[str]:
        """All names, those of sidecars among them."""
        return [*self.names.values(), *(_sidecar(name) for name in self.names.values())]


def parse(path: Path | str) -> Name:
    """Raises: ConfigError: it is no BIDS name of a person's image or a template."""
    stem = re.sub(r"\.nii(\.gz)?$", "", Path(path).name)
    *parts, suffix = stem.split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    plain = all(re.fullmatch(r"[a-z]+-[0-9a-zA-Z+]+", part) for part in parts) and re.fullmatch(r"[0-9a-zA-Z]+", suffix)
    if not plain or not {"sub", "tpl"} & entities.keys():
        raise ConfigError(
            f"{path}: is no BIDS name such as sub-01_T1w.nii.gz or tpl-MNI152_T1w.nii.gz; rename it or leave out --bids"
        )
    return Name(entities, suffix)


def derivative(moving: Path | str, fixed: Path | str) -> Derivative:
    """Where the registration of two files goes: to the person of moving, or of fixed where moving is a template.

    Raises:
        ConfigError: names that are not BIDS, or two templates.
    """
    source, target = parse(moving), parse(fixed)
    person = next((name for name in (source, target) if "sub" in name.entities), None)
    if person is None:
        raise ConfigError(f"{moving}, {fixed}: both are templates; --bids needs a person's image (sub-...)")
    # The person's own image is told by the file's other entities, the other one by its space alone.
    own, other = _space(person), _qualified(target if person is source else source, person)
    if own == other:
        own = _qualified(person, target if person is source else source)
    if own == other:
        raise ConfigError(f"{moving}, {fixed}: nothing in their names tells their spaces apart; rename one")
    a, b = (own, other) if person is source else (other, own)
    stem = person.stem
    of = "" if person is source else a  # which template
    labels = "labels" if source.suffix == "dseg" else ""
    ways = {"forward": f"{stem}_from-{a}_to-{b}_mode-image_xfm", "inverse": f"{stem}_from-{b}_to-{a}_mode-image_xfm"}
    names = {
        "forward.h5": f"{ways['forward']}.h5",
        "inverse.h5": f"{ways['inverse']}.h5",
        "moved.nii.gz": f"{stem}_space-{b}_desc-moved{of}_{source.suffix}.nii.gz",
        "moved_labels.nii.gz": f"{stem}_space-{b}_desc-moved{labels}{of}_dseg.nii.gz",
        "jacobian.nii.gz": f"{stem}_space-{b}_desc-jacobian{of}_{source.suffix}.nii.gz",
        "moved_points.csv": f"{ways['forward']}_points.csv",
        "report.html": f"{ways['forward']}.html",
        "metrics.json": f"{ways['forward']}.json",
    }
    folder = Path(f"sub-{person.entities['sub']}")
    if "ses" in person.entities:
        folder /= f"ses-{person.entities['ses']}"
    return Derivative(folder / _datatype(person.suffix), names, (a, b))


def _space(name: Name) -> str:
    return name.entities.get("tpl") or name.entities.get("space") or name.suffix


def _qualified(name: Name, other: Name) -> str:
    """A space with what its image's name says beyond another's: ses2T1w, sub02T1w, MNIPediatriccohort1."""
    known = (*RELATIVES, "space", "tpl")
    extra = [f"{k}{v}" for k, v in name.entities.items() if k not in known and other.entities.get(k) != v]
    parts = [_space(name), *extra] if "tpl" in name.entities else [*extra, _space(name)]
    return re.sub(r"[^0-9a-zA-Z]", "", "".join(parts))


def _datatype(suffix: str) -> str:
    return "func" if suffix in FUNCTIONAL else "dwi" if suffix == "dwi" else "anat"


def _sidecar(name: str) -> str:
    return re.sub(r"\.(nii\.gz|h5)$", ".json", name)


class Sources:
    """How sidecars in a data set name its inputs: BIDS URIs of files in data sets, the bare names of others.

    Attributes:
        names: of moving and fixed.
        links: data sets they lie in, for DatasetLinks.
    """

    def __init__(self, root: Path, moving: Path | str, fixed: Path | str) -> None:
        self.links: dict[str, str] = dict(_description(root).get("DatasetLinks", {}))
        self.names = [self._name(Path(path), root) for path in (moving, fixed)]

    def _name(self, path: Path, root: Path) -> str:
        within = next((folder for folder in path.resolve().parents if (folder / DATASET).is_file()), None)
        if within is None:
            return path.name
        place = path.resolve().relative_to(within).as_posix()
        if within == root.resolve():
            return f"bids::{place}"
        link, stem = within.as_uri(), re.sub(r"[^0-9a-zA-Z-]", "", within.name) or "source"
        names = (stem, *(f"{stem}{count}" for count in range(2, len(self.links) + 3)))
        name = next(name for name in names if self.links.get(name, link) == link)
        self.links[name] = link
        return f"bids:{name}:{place}"


def _description(root: Path) -> dict[str, Any]:
    try:
        found = json.loads((root / DATASET).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sidecars(found: Derivative, moving: Path | str, sources: Sources, written: set[str]) -> dict[str, dict[str, Any]]:
    """File name -> content of the sidecars of what was written but for the forward transform's, which is metrics.json.

    Args:
        written: the files, by the names of a run folder.
    """
    a, b = found.spaces
    about: dict[str, dict[str, Any]] = {
        "inverse.h5": {"Description": f"ITK composite: carries images from {b} to {a}", "Sources": sources.names},
        "moved.nii.gz": {"Description": f"moving on the grid of {b}", **_skull(moving)},
        "moved_labels.nii.gz": {"Description": f"moving's labels on the grid of {b}, nearest neighbour"},
        "jacobian.nii.gz": {"Description": f"volume in {a} over volume in {b}", **_skull(moving)},
    }
    placed = {"SpatialReference": sources.names[1], "Sources": sources.names}
    return {
        _sidecar(found.names[name]): content | ({} if name.endswith(".h5") else placed)
        for name, content in about.items()
        if name in written
    }


def forward_sidecar(found: Derivative, sources: Sources) -> dict[str, Any]:
    """What the forward transform's sidecar says besides the metrics."""
    a, b = found.spaces
    about = f"ITK composite: carries images from {a} to {b}, and points from {b} to {a}"
    return {"Description": about, "Sources": sources.names}


def _skull(moving: Path | str) -> dict[str, bool]:
    """What moving's own sidecar, or its name, says of the skull."""
    path = Path(re.sub(r"\.nii(\.gz)?$", ".json", str(moving)))
    try:
        said = json.loads(path.read_text(encoding="utf-8")).get("SkullStripped")
    except (OSError, ValueError, AttributeError):
        said = None
    # A derivative must say so; what does not is raw, and raw heads have their skulls.
    return {"SkullStripped": said if isinstance(said, bool) else parse(moving).entities.get("desc") == "brain"}


def describe_dataset(root: Path, links: Mapping[str, str]) -> None:
    """Write dataset_description.json, README and .bidsignore where they are missing; add links that are new."""
    description = {
        "Name": "r2reg: registrations",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "r2reg", "Version": __version__}],
    }
    texts = {
        DATASET: json.dumps(description, indent=2) + "\n",
        "README": "Registrations by r2reg: moved images and labels, transforms (ITK), Jacobians and reports.\n",
        ".bidsignore": "*.html\n*_xfm.*\n*_points.csv\n",  # what the standard does not know of yet
    }
    for name, text in texts.items():
        if not (root / name).exists():
            with atomic_path(root / name) as path:
                path.write_text(text, encoding="utf-8")
    description = _description(root)
    if description.get("DatasetLinks", {}) != dict(links):
        with atomic_path(root / DATASET) as path:
            path.write_text(json.dumps(description | {"DatasetLinks": dict(links)}, indent=2) + "\n", encoding="utf-8")
