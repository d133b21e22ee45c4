"""Where each data set keeps its files: a folder as its owners distribute it -> the scans in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from r2reg.errors import TableError

NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Scan:
    """One image and what comes with it.

    Attributes:
        id: unique in the set, fit for a file name. subject: the person.
        volume: which one of a 4-D file. role: moving or fixed, where the set comes in pairs.
    """

    id: str
    subject: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    role: str = ""
    details: dict[str, str] = field(default_factory=dict)


def _first(folder: Path, stem: str, endings: tuple[str, ...] = NIFTI) -> Path | None:
    return next((path for path in (folder / f"{stem}{ending}" for ending in endings) if path.exists()), None)


def acdc(root: Path) -> list[Scan]:
    """patientNNN/ with Info.cfg, patientNNN_frameKK.nii.gz and patientNNN_frameKK_gt.nii.gz, at any depth (training/,
    testing/): end diastole is moving, end systole fixed."""
    scans = []
    for info in sorted(root.rglob("Info.cfg"), key=lambda path: path.parent.name):
        folder = info.parent
        found = dict(re.findall(r"^\s*(\w+)\s*:\s*(\S+)", info.read_text(encoding="utf-8"), re.MULTILINE))
        for phase, role in (("ED", "moving"), ("ES", "fixed")):
            if phase not in found:
                raise TableError(f"{info}: has no line {phase}; copy the data set again")
            stem = f"{folder.name}_frame{int(found[phase]):02}"
            image = _first(folder, stem)
            if image is None:
                raise TableError(f"{folder}: has no {stem}.nii.gz, which Info.cfg names as {phase}; copy it again")
            labels = _first(folder, f"{stem}_gt")
            name = f"{folder.name}_{phase}"
            scans.append(Scan(name, folder.name, image, labels, role=role, details={"group": found.get("Group", "")}))
    return scans


def empire10(root: Path) -> list[Scan]:
    """scans/NN_Moving.mhd and NN_Fixed.mhd, lungMasks/ with the same names."""
    scans = []
    for image in sorted(path for path in root.rglob("*.mhd") if re.fullmatch(r"\d\d_(Fixed|Moving)", path.stem)):
        if image.parent.name.lower() != "scans":
            continue
        mask = image.parent.parent / "lungMasks" / image.name
        if not mask.exists():
            raise TableError(f"{mask}: does not exist; the lung masks belong beside scans/, copy them too")
        number, role = image.stem.split("_")
        scans.append(Scan(image.stem, number, image, mask=mask, role=role.lower()))
    return scans


def oasis(root: Path) -> list[Scan]:
    """neurite's OASIS_OAS1_NNNN_MR1/aligned_norm.nii.gz and aligned_seg35.nii.gz, or Learn2Reg's
    imagesTr/OASIS_NNNN_0000.nii.gz and labelsTr/."""
    scans = []
    for image in sorted(root.rglob("aligned_norm.nii.gz")):
        folder = image.parent
        scans.append(Scan(folder.name, folder.name, image, _first(folder, "aligned_seg35")))
    for image in [] if scans else sorted(root.rglob("imagesTr/OASIS_*_0000.nii.gz")):
        labels = image.parent.parent / "labelsTr" / image.name
        name = image.name.removesuffix("_0000.nii.gz")
        scans.append(Scan(name, name, image, labels if labels.exists() else None))
    return scans


def ibsr18(root: Path) -> list[Scan]:
    """IBSR_NN/IBSR_NN_ana_strip.nii.gz (skull-stripped, bias-corrected by its owners) and IBSR_NN_seg_ana.nii.gz."""
    scans = []
    for folder in sorted(path for path in root.rglob("IBSR_[0-9][0-9]") if path.is_dir()):
        image = _first(folder, f"{folder.name}_ana_strip")
        if image is None:
            raise TableError(f"{folder}: has no {folder.name}_ana_strip.nii.gz; take the set IBSR_nifti_stripped")
        scans.append(Scan(folder.name, folder.name, image, _first(folder, f"{folder.name}_seg_ana")))
    return scans


def bids(root: Path) -> list[Scan]:
    """sub-X/[ses-Y/]anat/*_T1w.nii[.gz] of any BIDS folder."""
    scans = []
    for image in sorted(root.glob("sub-*/**/anat/*_T1w.nii*")):
        if not image.name.endswith(NIFTI) or "derivatives" in image.relative_to(root).parts:
            continue
        subject = image.relative_to(root).parts[0]
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        scans.append(Scan(name, subject, image))
    return scans


LAYOUTS: dict[str, Callable[[Path], list[Scan]]] = {
    "acdc": acdc,
    "empire10": empire10,
    "oasis": oasis,
    "ibsr18": ibsr18,
    "bids": bids,
}


def find_scans(name: str, root: Path) -> list[Scan]:
    """The scans of a set in a folder.

    Raises:
        TableError: no such folder, nothing in it that looks like the set, or a part of it missing.
    """
    if not root.is_dir():
        raise TableError(f"{root}: is no folder; give the one that the data set was unpacked into")
    scans = LAYOUTS[name](root)
    if not scans:
        wanted = " ".join((LAYOUTS[name].__doc__ or "").split()).rstrip(".")
        raise TableError(f"{root}: holds nothing of {name}; looked for {wanted}")
    twice = {scan.id for scan in scans if sum(other.id == scan.id for other in scans) > 1}
    if twice:
        raise TableError(f"{root}: holds {', '.join(sorted(twice))} twice; keep one copy of the set in it")
    roles: dict[str, set[str]] = {}
    for scan in scans:
        roles.setdefault(scan.subject, set()).add(scan.role)
    for subject, found in roles.items():
        if found not in ({""}, {"moving", "fixed"}):
            missing = ", ".join({"moving", "fixed"} - found)
            raise TableError(f"{root}: {subject} has no {missing} scan; copy it again")
    return scans
