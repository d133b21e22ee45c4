"""`r2reg inspect`: a trained network looked into."""

from __future__ import annotations

import json
from typing import Any

import click

from r2reg.cli.common import command_options, json_option


@click.command(epilog="Example: r2reg inspect runs/brain --convergence")
@click.argument("model")
@click.option("--convergence", is_flag=True, help="Compare what the network integrates with exact integration.")
@json_option
@command_options
def inspect(model: str, convergence: bool, as_json: bool) -> None:
    """Say how the residual blocks of MODEL, a folder that `r2reg train` wrote or a model that ships, are
    bounded.

    With --convergence also how far its displacements are from those that exact integration makes of its velocities,
    over the pairs that it was validated on.
    """
    from r2reg.evaluation.inspection import inspect_model
    from r2reg.released import find_model
    from r2reg.startup import start_backend

    folder = find_model(model)
    start_backend("auto", 0, False, 0)
    found = inspect_model(folder, converges=convergence)
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """The same as text."""
    network = found["network"]
    told = [f"{network['network']}, {network['integrator']}, spectral norm {network['spectral_norm']}"]
    if found["norms"]:
        told.append(f"{'convolution':16} {'operator':>9} {'kernel':>9}   (norms; an operator's above 1 is no bound)")
    told += [f"{row['layer']:16} {row['operator']:9.4f} {row['kernel']:9.4f}" for row in found["norms"]]
    if "convergence" in found:
        test = dict(found["convergence"])
        told.append(
            f"convergence, {test.pop('pairs')} pairs: root mean square and largest distance, voxels; mean square"
        )
        for name, error in test.items():
            rms, largest, square = (error[key] for key in ("rms", "max", "mean_square"))
            told.append(
                f"  {NAMES[name]:52} {rms['mean']:.4f} +- {rms['sd']:.4f}  {largest['mean']:.3f}  {square['mean']:.3g}"
            )
    return told


NAMES = {
    "paper": "network against scaling and squaring of v0 (paper)",
    "converged": "network against the converged flow",
    "scaling_squaring": "scaling and squaring against the converged flow",
}
