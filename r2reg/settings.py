"""Settings as frozen classes that know their keys, and checks of single values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self, get_args

from r2reg.errors import ConfigError


class Settings:
    """Mixin of the settings classes: dict round trip with checked keys."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values, such as a JSON object; lists become tuples.

        Raises:
            ConfigError: an unknown key (the known ones are named), or a value outside its choices.
        """
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back and JSON holds."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise ConfigError unless value is one of the Literal's or tuple's choices."""
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}. Received: {name}={value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise ConfigError unless value is a finite number above 0."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{name} must be a positive number. Received: {name}={value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise ConfigError unless value is a finite number of at least 0."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ConfigError(f"{name} must be a number of at least 0. Received: {name}={value!r}")


def check_list(name: str, value: Any) -> None:
    """Raise ConfigError unless value is a non-empty tuple."""
    if not isinstance(value, tuple) or not value:
        raise ConfigError(f"{name} must be a list of numbers. Received: {name}={value!r}")


def check_seed(value: Any) -> None:
    """Raise ConfigError unless every random generator takes the seed."""
    check_count("seed", value, least=0)
    if value >= 2**32:
        raise ConfigError(f"seed must be below 2^32. Received: seed={value}")


def check_device(value: str) -> None:
    """Raise ConfigError unless value is auto, cpu, gpu or gpu:K."""
    kind, _, number = value.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (":" in value and not (kind == "gpu" and number.isdigit())):
        raise ConfigError(f"device must be auto, cpu, gpu or gpu:K. Received: device={value!r}")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise ConfigError unless value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}. Received: {name}={value!r}")
