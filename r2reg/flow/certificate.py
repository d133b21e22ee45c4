"""What is known of the steps that a map is composed of."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """What is known of a map's steps.

    Attributes:
        steps: how many there are.
        largest_bound: of their Lipschitz constants; nan for a map that was not built by bounded steps.
        halved: how often a step had to be halved to keep the bound.
    """

    steps: int = 0
    largest_bound: float = 0.0
    halved: int = 0

    @property
    def holds(self) -> bool:
        """Whether every step is one-to-one."""
        return self.largest_bound < 1  # false for nan

    def after(self, earlier: Certificate) -> Certificate:
        """The certificate of a composition."""
        bounds = (self.largest_bound, earlier.largest_bound)
        largest = math.nan if any(math.isnan(b) for b in bounds) else max(bounds)
        return Certificate(self.steps + earlier.steps, largest, self.halved + earlier.halved)
