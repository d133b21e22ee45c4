"""`r2reg train`: from a table of images to a trained network."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from r2reg import config as settings
from r2reg.cli.common import Numbers, command_options, overwrite_option
from r2reg.errors import ConfigError

EXAMPLE = """\b
Example, three brains at 2 mm on a CPU:
    printf 'image\\na.nii.gz\\nb.nii.gz\\nc.nii.gz\\n' > cohort.csv
    r2reg train cohort.csv -o run --spacing 2 --similarity lncc --steps 500
    r2reg register a.nii.gz b.nii.gz --model run -o out
"""


class Words(click.ParamType):
    """Words with commas between them."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Text -> tuple of words; none for "none"."""
        return () if value == "none" else tuple(word for word in value.split(",") if word)


DEFAULTS = settings.TrainConfig().to_flat()


def with_default(name: str, text: str) -> str:
    """Help with the default, which click must not know: an option not given leaves what the file says."""
    key = name.lstrip("-").replace("-", "_")
    value = DEFAULTS[key]
    own = "; of vm-diff, pyramid and affine-cpab their own" if key in settings.R2NET_DEFAULTS else ""
    return f"{text}  [default: {value}{own}]" if isinstance(value, (int, float, str)) else text


def choice(name: str, kind: Any, text: str) -> Any:
    """An option whose values are those of a Literal type."""
    return click.option(name, type=click.Choice(get_args(kind)), help=with_default(name, text))


def number(name: str, kind: type, text: str, least: float = 0, strict: bool = False) -> Any:
    """An option for a whole number or a real number of at least `least` (above it if strict)."""
    limits: Any = click.IntRange if kind is int else click.FloatRange
    return click.option(name, type=limits(min=least, min_open=strict), help=with_default(name, text))


OPTIONS = [
    choice(
        "--network",
        settings.NetworkName,
        "Stationary (svf) or time-varying (nsvf) velocity, multi-scale (ms), coarse to fine (pyramid); VoxelMorph; a "
        "map of few parameters.",
    ),
    choice("--velocity", settings.Velocity, "How the initial velocity is estimated."),
    choice("--velocity-size", settings.VelocitySize, "Size at which the velocity is estimated and integrated."),
    number("--velocity-sigma", float, "Voxels, of the velocity's smoothing (...gauss, multi).", 0, strict=True),
    choice("--integrator", settings.Integrator, "How the velocity becomes a displacement."),
    choice("--scheme", settings.Scheme, "Steps of the integrator `flow`."),
    number("--substeps", int, "Steps per block of the integrator `flow`.", 1),
    number("--squarings", int, "Of the integrator `scaling_squaring`.", 1),
    choice("--spectral-norm", settings.SpectralNorm, "Norm of the whole convolution, or of its kernel (paper)."),
    number("--blocks", int, "Residual blocks.", 1),
    number("--residual-scale", float, "Of a residual block's branch.", 0, strict=True),
    click.option(
        "--symmetric/--no-symmetric",
        default=None,
        help="Of pyramid: half the difference of both directions' velocities.  [default: no]",
    ),
    number("--rounds", int, "How often each level of pyramid is asked.", 1),
    number("--up-filters", int, "Filters of the transposed convolutions.", 1),
    number("--chunks", int, "Along each axis, of ms- networks.", 1),
    number("--overlap", int, "Voxels that chunks share at least.", 0),
    number("--downsampling", int, "Factor of the ms- networks' coarse branch.", 1),
    number("--boxes", int, "Of affine-cpab, along each axis.", 1),
    click.option("--encoder", type=Numbers(int), help="Filters going down, one per level.  [default: 16,32,32,32]"),
    click.option("--decoder", type=Numbers(int), help="Filters coming up, three more.  [default: 32,32,32,32,16,16,3]"),
    choice("--similarity", settings.TrainSimilarity, "What is minimised; dice needs labels."),
    click.option(
        "--weights", multiple=True, metavar="NAME=VALUE", help=f"Of the loss: {', '.join(settings.LOSS_PARTS)}."
    ),
    number("--image-sigma", float, "Noise of the images: prob's kl has its square as weight.", 0, strict=True),
    number("--prior-lambda", float, "Precision of prob's prior.", 0, strict=True),
    choice("--align", settings.Align, "Affine to the first training image (pairs: to fixed), or trust headers."),
    choice(
        "--synthesis",
        settings.Synthesis,
        "Paint the images: from the labels column, or from random shapes (no COHORT).",
    ),
    choice(
        "--contrast",
        settings.Contrast,
        "Of painted images: T1-like greys for FreeSurfer ids, random ones, or now these, now those.",
    ),
    click.option(
        "--one-contrast/--no-one-contrast",
        default=None,
        help="Both painted images of a pair in the same greys.  [default: no; with mse and lncc always]",
    ),
    choice("--skull", settings.Skull, "What lies around the brain of FreeSurfer maps; mixed: in half the images."),
    click.option("--augment", type=Words(), help=f"Any of {','.join(get_args(settings.Augment))}.  [default: none]"),
    click.option("--shape", type=Numbers(int), help="Training grid, such as 80x96x112.  [default: the first image's]"),
    click.option("--spacing", type=Numbers(float), help="Of the training grid, mm: one or one per axis.  [default: 2]"),
    click.option("--clip", type=float, nargs=2, default=None, help="Intensities to keep, such as -1000 400 (CT)."),
    number("--epochs", int, "Passes over given pairs; 100 steps each for a cohort.", 1),
    number("--steps", int, "Steps, in place of epochs.", 1),
    number("--batch-size", int, "Pairs per step.", 1),
    number("--accumulate", int, "Steps whose mean gradient makes one update.", 1),
    number("--learning-rate", float, "Of Adam.", 0, strict=True),
    choice("--schedule", settings.Schedule, "The learning rate over the steps; cosine: down to 0."),
    number("--clipnorm", float, "Largest norm of a weight's gradient; 0: any."),
    number("--weight-decay", float, "Of AdamW, on kernels."),
    number("--validate-every", int, "Steps between validations; 0: an epoch."),
    number("--validation-pairs", int, "Pairs validated on, at most.", 1),
    number("--seed", int, "Of weights, pairs and painting."),
    number("--workers", int, "Threads that make batches.", 1),
    click.option(
        "--mixed-precision/--no-mixed-precision", default=None, help="U-Net in half precision, for GPUs.  [default: no]"
    ),
    click.option("--device", metavar="auto|cpu|gpu[:K]", help=with_default("--device", "Where to train.")),
    number("--devices", int, "How many devices share a batch.", 1),
    number("--threads", int, "CPU threads; 0: the backend's choice."),
    click.option("--deterministic/--no-deterministic", default=None, help="Run-to-run equal results, slower."),
]


def training_options(function: Any) -> Any:
    """Decorate with every option that is a setting, in the order of the list."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of a TOML file; a dash in a name is as good as an underscore.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        with path.open("rb") as file:
            return {name.replace("-", "_"): value for name, value in tomllib.load(file).items()}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error}); `r2reg train --write-config` prints an example") from None


def parse_weights(texts: tuple[str, ...]) -> dict[str, float]:
    """("diffusion=0.1",) -> {"diffusion": 0.1}."""
    try:
        return {name: float(value) for name, value in (text.split("=") for text in texts)}
    except ValueError:
        raise click.BadParameter("takes NAME=VALUE such as diffusion=0.1", param_hint="--weights") from None


def merge(file: dict[str, Any], given: dict[str, Any]) -> settings.TrainConfig:
    """The settings of a file with the options that were given on the command line over them."""
    given = {name: value for name, value in given.items() if value is not None and (name, value) != ("weights", ())}
    if "weights" in given:
        given["weights"] = file.get("weights", {}) | parse_weights(given["weights"])
    if len(given.get("spacing", ())) == 1:
        given["spacing"] = given["spacing"][0]
    if {"epochs", "steps"} <= given.keys():
        raise click.UsageError("--epochs and --steps exclude each other")
    if "epochs" in given:
        file = {name: value for name, value in file.items() if name != "steps"}
    merged = settings.TrainConfig.from_flat(file | given)
    for name in given:
        needed, has = ONLY_WITH.get(name, ("", lambda _: True))
        if not has(merged):
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} has no effect here: it needs {needed}; leave it out or change that")
    return merged


def has_steps(model: settings.NetworkConfig) -> bool:
    """Whether the number of blocks counts."""
    if model.stationary and model.integrator == "scaling_squaring":
        return False
    return model.residual or model.integrator == "flow"


# Setting -> what it needs to have an effect.
ONLY_WITH: dict[str, tuple[str, Callable[[settings.TrainConfig], bool]]] = {
    "velocity_sigma": ("--velocity gauss, multi or nonprob-gauss", lambda c: c.model.velocity in settings.SMOOTHED),
    "up_filters": ("--velocity nonprob or nonprob-gauss", lambda c: c.model.velocity.startswith("nonprob")),
    "scheme": ("--integrator flow", lambda c: c.model.integrator == "flow"),
    "substeps": ("--integrator flow", lambda c: c.model.integrator == "flow"),
    "squarings": ("--integrator scaling_squaring", lambda c: c.model.integrator == "scaling_squaring"),
    "blocks": ("--integrator residual or flow, or nsvf-r2net", lambda c: has_steps(c.model)),
    "spectral_norm": ("an R2Net", lambda c: c.model.residual),
    "residual_scale": ("an R2Net", lambda c: c.model.residual),
    "chunks": ("ms-svf-r2net or ms-nsvf-r2net", lambda c: c.model.two_phase),
    "overlap": ("ms-svf-r2net or ms-nsvf-r2net", lambda c: c.model.two_phase),
    "downsampling": ("ms-svf-r2net or ms-nsvf-r2net", lambda c: c.model.two_phase),
    "image_sigma": ("--velocity prob", lambda c: c.model.velocity == "prob"),
    "prior_lambda": ("--velocity prob", lambda c: c.model.velocity == "prob"),
    "contrast": ("--synthesis labels", lambda c: c.synthesis == "labels"),
    "one_contrast": (
        "--synthesis, and a similarity other than mse and lncc, which always have it",
        lambda c: c.synthesis != "none" and c.similarity not in ("mse", "lncc"),
    ),
    "skull": ("--synthesis labels", lambda c: c.synthesis == "labels"),
}


@click.command(epilog=EXAMPLE, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("cohort", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", "run", type=click.Path(path_type=Path), metavar="RUN", help="Folder of the run.")
@training_options
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml", help="Settings; options win.")
@click.option("--write-config", is_flag=True, help="Print all settings as TOML and stop.")
@click.option("--resume", is_flag=True, help="Go on from RUN/last.ckpt.")
@click.option(
    "--initial-weights",
    "initial",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="A run, or a model that ships, to begin with.",
)
@overwrite_option
@command_options
def train(
    cohort: Path | None,
    run: Path | None,
    config: Path | None,
    write_config: bool,
    resume: bool,
    initial: Path | None,
    overwrite: bool,
    **given: Any,
) -> None:
    """Train a registration network on COHORT and write it to RUN.

    COHORT is a CSV with a column image (and labels, mask, subject, group, split), or with columns moving and
    fixed for given pairs; paths are relative to it; `--synthesis shapes` needs none. RUN can be given to
    `r2reg register --model`. SIGINT and SIGTERM finish the step and save; `--resume` goes on to the same weights.
    `--initial-weights` begins with what another run has learnt, on other images or at another spacing.
    """
    merged = merge(read_toml(config) if config else {}, given)
    if write_config:
        from r2reg.training.card import to_toml

        click.echo(to_toml(merged), nl=False)
        return
    if run is None or (cohort is None and merged.synthesis != "shapes"):
        raise click.UsageError("give a cohort and a run folder: r2reg train COHORT.csv -o RUN")
    from r2reg.training.loop import train as train_network

    result = train_network(cohort, run, merged, resume=resume, overwrite=overwrite, initial=initial)
    click.echo(f"{result.run}: {result.steps} steps, best on validation at step {result.best_step}")
    for name, value in result.best.items():
        if name.startswith("val_"):
            click.echo(f"  {name.removeprefix('val_')}: {value:.5g}")
    click.echo(f"use it: r2reg register MOVING FIXED --model {result.run} -o OUT")
