"""The exception tree. Every message says what is wrong, where, and the way out, in one line."""

from collections.abc import Iterable

LISTED = 10  # things that a message names


def listed(things: Iterable[object]) -> str:
    """The first few, for a message; "none" where there is none."""
    names = [str(thing) for thing in things]
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") or "none"


class R2RegError(Exception):
    """Base of all errors a user can cause; the command line prints them as one line and exits with 1."""


class ImageError(R2RegError):
    """An image, label map or mask cannot be read or used."""


class GeometryError(R2RegError):
    """A grid, affine or field has a shape or values that cannot be used."""


class TransformError(R2RegError):
    """A transform file cannot be read, written or applied."""


class GridsNeededError(TransformError):
    """A transform file says nothing of the world without the grids of both images."""


class TableError(R2RegError):
    """A CSV file (cohort, pairs, points) is not what it should be."""


class ConfigError(R2RegError):
    """A setting is unknown or has a value that cannot be used."""


class ModelError(R2RegError):
    """A model folder is incomplete, corrupt or does not fit the images."""


class OutputError(R2RegError):
    """A result cannot be written."""


class RegistrationError(R2RegError):
    """A pair of images cannot be registered."""


class TrainingError(R2RegError):
    """A training cannot start or go on."""
