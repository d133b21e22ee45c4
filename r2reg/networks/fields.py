"""Layers on displacements and velocities, (N, *S, d) in voxels of their own grid."""

from __future__ import annotations

from typing import Any

from keras import layers

from r2reg.config import NetworkConfig
from r2reg.flow.integrate import integrate
from r2reg.flow.resize import enlarge
from r2reg.flow.warp import compose, warp

Tensor = Any


class Integrate(layers.Layer):
    """From the velocities to the displacement u = phi - id, by one of the integrators."""

    def __init__(self, integrator: str, scheme: str, substeps: int, squarings: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings: dict[str, Any] = {
            "integrator": integrator,
            "scheme": scheme,
            "substeps": substeps,
            "squarings": squarings,
        }

    def call(self, velocities: list[Tensor]) -> Tensor:
        return integrate(velocities, **self.settings)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}


def integrator(config: NetworkConfig, name: str) -> Integrate:
    """The integrator of a network."""
    return Integrate(config.integrator, config.scheme, config.substeps, config.squarings, name=name)


class EnlargeField(layers.Layer):
    """Vectors in voxels, on the grid of `factor` times the size and in that grid's voxels."""

    def __init__(self, factor: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, field: Tensor) -> Tensor:
        return self.factor * enlarge(field, self.factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


class Warp(layers.Layer):
    """[image (N, *S, C), displacement] -> the moved image."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        return warp(*inputs)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]


class Compose(layers.Layer):
    """[outer, inner] -> the displacement of (id + outer) o (id + inner)."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        return compose(*inputs)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return input_shape[0]
