"""Frozen, keyword-only settings that reject unknown keys and name the known ones."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from typing import Literal

from r2reg.errors import ConfigError

NetworkName = Literal["svf-r2net", "nsvf-r2net"]
Integrator = Literal["residual", "flow", "scaling_squaring"]
Scheme = Literal["euler", "rk4"]
SpectralNorm = Literal["operator", "kernel"]


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


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """Everything that decides a network's weights and what it computes.

    Filters are the published code's list (design of the R2Net paper, VoxelMorph's U-Net): `encoder` one stride-2
    convolution each; `decoder` one convolution per encoder level coming up, the rest at half and full size.
    """

    network: NetworkName = "nsvf-r2net"
    ndim: int = 3
    encoder: tuple[int, ...] = (16, 32, 32, 32)
    decoder: tuple[int, ...] = (32, 32, 32, 32, 16, 16, 3)
    up_filters: int = 8
    blocks: int = 7
    residual_scale: float = 0.5
    spectral_norm: SpectralNorm = "operator"
    integrator: Integrator = "residual"
    scheme: Scheme = "euler"
    substeps: int = 1
    spacing: tuple[float, ...] = (2.0, 2.0, 2.0)

    def __post_init__(self) -> None:
        check_choice("network", self.network, NetworkName)
        check_choice("integrator", self.integrator, Integrator)
        check_choice("scheme", self.scheme, Scheme)
        check_choice("spectral_norm", self.spectral_norm, SpectralNorm)
        check_choice("ndim", self.ndim, (2, 3))
        for name in ("blocks", "substeps", "residual_scale", "up_filters"):
            check_positive(name, getattr(self, name))
        if len(self.decoder) != len(self.encoder) + 3:
            raise ConfigError(
                f"decoder needs one filter per encoder level and three more. Received: encoder={self.encoder}, "
                f"decoder={self.decoder}"
            )
        if len(self.spacing) != self.ndim:
            raise ConfigError(f"spacing needs {self.ndim} numbers. Received: spacing={self.spacing}")
        for value in self.spacing:
            check_positive("spacing", value)
