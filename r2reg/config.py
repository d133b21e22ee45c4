"""What networks, trainings and registrations can be set to: frozen, keyword-only, unknown keys rejected."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from r2reg.errors import ConfigError
from r2reg.settings import (
    Settings,
    check_choice,
    check_count,
    check_device,
    check_list,
    check_not_negative,
    check_positive,
    check_seed,
)

NetworkName = Literal[
    "svf-r2net",
    "nsvf-r2net",
    "ms-svf-r2net",
    "ms-nsvf-r2net",
    "pyramid-nsvf-r2net",
    "vm-diff",
    "ms-vm-diff",
    "affine-cpab",
]
Branch = Literal["chunk", "coarse"]  # of a multi-scale network
Velocity = Literal["prob", "nokl", "gauss", "multi", "nonprob", "nonprob-gauss"]
VelocitySize = Literal["full", "half"]
Integrator = Literal["residual", "flow", "scaling_squaring", "cpab"]
Scheme = Literal["euler", "rk4"]
SpectralNorm = Literal["operator", "kernel"]
TrainSimilarity = Literal["mse", "lncc", "ngf", "mi", "mind", "dice"]
Align = Literal["none", "affine"]
Synthesis = Literal["none", "labels", "shapes"]
Contrast = Literal["t1", "random", "mixed"]
Skull = Literal["strip", "keep", "mixed"]
Schedule = Literal["constant", "cosine"]
Augment = Literal["affine", "warp", "flip", "resolution", "bias", "intensity", "crop"]


SMOOTHED: tuple[Velocity, ...] = ("gauss", "multi", "nonprob-gauss")


R2NET_DEFAULTS = {"velocity": "nonprob", "velocity_size": "full", "integrator": "residual", "blocks": 7}
# Diffeomorphic VoxelMorph as published (Dalca et al. 2018): scaling and squaring of a sampled velocity at half size.
VM_DIFF_DEFAULTS = {"velocity": "prob", "velocity_size": "half", "integrator": "scaling_squaring", "blocks": 7}
NETWORK_DEFAULTS: dict[str, dict[str, Any]] = {
    "svf-r2net": R2NET_DEFAULTS,
    "nsvf-r2net": R2NET_DEFAULTS,
    "ms-svf-r2net": R2NET_DEFAULTS,
    "ms-nsvf-r2net": R2NET_DEFAULTS,
    "pyramid-nsvf-r2net": {"velocity": "nonprob", "velocity_size": "half", "integrator": "flow", "blocks": 2},
    "vm-diff": VM_DIFF_DEFAULTS,
    "ms-vm-diff": VM_DIFF_DEFAULTS | {"velocity_size": "full"},
    "affine-cpab": R2NET_DEFAULTS | {"integrator": "cpab"},
}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """Everything that decides a network's weights and what it computes.

    Filters are the published code's list (design of the R2Net paper, VoxelMorph's U-Net): `encoder` one
    stride-2 convolution each; `decoder` one convolution per encoder level coming up, the rest at half and
    full size.

    `velocity` is the way in which the U-Net estimates the initial velocity (Joshi & Hong 2023,
    Table 1): prob samples it (mean and variance, KL in the loss), gauss smooths it by `velocity_sigma` voxels,
    multi does so and penalises its gradient, nonprob goes up by transposed convolutions. `velocity_size` half:
    the U-Net stops at half size, where the velocity is integrated. None stands for the network's own default,
    see NETWORK_DEFAULTS.

    Of ms-svf-r2net and ms-nsvf-r2net alone (Joshi & Hong 2023, sec. 2.4): `chunks` along each axis, neighbours
    sharing `overlap` voxels or more (the paper's 2 left seams, 8 do not), and the `downsampling` factor of the coarse
    branch.

    pyramid-nsvf-r2net has an R2Net on each level, whose `blocks` they are; see `networks.pyramid`. Its `decoder` is
    read as the filters of each level's two convolutions, coarsest first, that of full size being the last but one.
    `symmetric`: each level is asked both ways round, and takes half the difference of its two answers. `rounds`: how
    often it is asked, each time with the images as they are aligned by then.

    affine-cpab (Detlefsen et al. 2018) has no velocity at each voxel: it predicts the few parameters of an affine and
    a CPAB map over `boxes` along each axis, and knows of the rest only `encoder`, `ndim` and `spacing`.
    """

    network: NetworkName = "nsvf-r2net"
    velocity: Velocity = None  # type: ignore[assignment]
    velocity_size: VelocitySize = None  # type: ignore[assignment]
    velocity_sigma: float = 1.0
    ndim: int = 3
    encoder: tuple[int, ...] = (16, 32, 32, 32)
    decoder: tuple[int, ...] = (32, 32, 32, 32, 16, 16, 3)
    up_filters: int = 8
    blocks: int = None  # type: ignore[assignment]
    residual_scale: float = 0.5
    spectral_norm: SpectralNorm = "operator"
    integrator: Integrator = None  # type: ignore[assignment]
    scheme: Scheme = "euler"
    substeps: int = 1
    squarings: int = 7
    chunks: int = 2
    overlap: int = 8
    downsampling: int = 2
    boxes: int = 3
    symmetric: bool = False
    rounds: int = 1
    spacing: tuple[float, ...] = (2.0, 2.0, 2.0)

    def __post_init__(self) -> None:
        check_choice("network", self.network, NetworkName)
        for name, default in NETWORK_DEFAULTS[self.network].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        check_choice("velocity", self.velocity, Velocity)
        check_choice("velocity_size", self.velocity_size, VelocitySize)
        check_choice("integrator", self.integrator, Integrator)
        check_choice("scheme", self.scheme, Scheme)
        check_choice("spectral_norm", self.spectral_norm, SpectralNorm)
        check_choice("ndim", self.ndim, (2, 3))
        if not self.residual and self.integrator == "residual":
            raise ConfigError(f"{self.network} has no residual blocks; its integrator is scaling_squaring or flow")
        if self.parametric != (self.integrator == "cpab"):
            raise ConfigError(
                "the network affine-cpab has the integrator cpab, and no other has. "
                f"Received: network={self.network!r}, integrator={self.integrator!r}"
            )
        if self.pyramid and (self.integrator == "residual" or self.velocity != "nonprob"):
            raise ConfigError(
                f"{self.network} composes flows: its integrator is flow or scaling_squaring, its velocity nonprob. "
                f"Received: integrator={self.integrator!r}, velocity={self.velocity!r}"
            )
        if (self.symmetric or self.rounds > 1) and not self.pyramid:
            raise ConfigError(f"symmetric and rounds are for pyramid-nsvf-r2net. Received: network={self.network!r}")
        if self.network.startswith("ms-") and self.velocity_size == "half":
            raise ConfigError(f"{self.network} estimates its velocity at full size; leave out --velocity-size half")
        for name in ("residual_scale", "velocity_sigma"):
            check_positive(name, getattr(self, name))
        for name in ("blocks", "substeps", "up_filters", "squarings", "chunks", "downsampling", "boxes", "rounds"):
            check_count(name, getattr(self, name), least=1)
        check_count("overlap", self.overlap, least=0)
        for name in ("encoder", "decoder", "spacing"):
            check_list(name, getattr(self, name))
        for filters in (*self.encoder, *self.decoder):
            check_count("encoder and decoder", filters, least=1)
        if len(self.decoder) != len(self.encoder) + 3:
            raise ConfigError(
                "decoder needs one filter per encoder level and three more. "
                f"Received: encoder={self.encoder}, decoder={self.decoder}"
            )
        if 2 ** len(self.encoder) < max(self.scales):
            raise ConfigError(f"{self.network} needs two levels. Received: encoder={self.encoder}")
        if len(self.spacing) != self.ndim:
            raise ConfigError(f"spacing needs {self.ndim} numbers. Received: spacing={self.spacing}")
        for value in self.spacing:
            check_positive("spacing", value)

    @property
    def residual(self) -> bool:
        """Whether residual blocks carry the velocity on; VoxelMorph has none."""
        return self.network.endswith("r2net")

    @property
    def parametric(self) -> bool:
        """Whether the map has few parameters, in place of a velocity at each voxel."""
        return self.network == "affine-cpab"

    @property
    def pyramid(self) -> bool:
        """Whether each level estimates a velocity, from the images as the coarser levels align them."""
        return self.network.startswith("pyramid-")

    @property
    def scales(self) -> tuple[int, ...]:
        """Factors by which grids with a velocity of their own are coarser than the image."""
        return (1, 2, 4) if self.network == "ms-vm-diff" else (1,)

    @property
    def two_phase(self) -> bool:
        """Whether velocities of a chunk branch and of a coarse branch are merged."""
        return self.network in ("ms-svf-r2net", "ms-nsvf-r2net")

    @property
    def stationary(self) -> bool:
        """Whether one velocity field lasts for the whole time."""
        return "nsvf" not in self.network

    @property
    def stride(self) -> int:
        """What the U-Net needs the image's size to be a multiple of."""
        return int(2 ** len(self.encoder))

    def branch(self, name: Branch) -> NetworkConfig:
        """The ordinary network of one branch of a multi-scale one."""
        factor = self.downsampling if name == "coarse" else 1
        own: Any = self.network.removeprefix("ms-")
        return dataclasses.replace(self, network=own, spacing=tuple(factor * s for s in self.spacing))


# Diffusion per similarity: VoxelMorph's 0.01 (mse), SynthMorph's 1 (dice), over about 9, since theirs is a mean over
# the nine derivatives and ours their sum; lncc by trial: at 0.1 trained maps fold between voxels, at 0.4 they do not;
# the last three are first guesses.
DEFAULT_DIFFUSION = {"mse": 0.001, "lncc": 0.4, "dice": 0.1, "ngf": 0.1, "mi": 0.1, "mind": 0.1}
# Folding: the paper's 1 beside MSE, of which little is left in training, some 0.003; other similarities stay near 1.
# With lncc at 2 mm 1 left 0.4 % of the voxels folded; going on with 100 left 0.02 to 0.05 %.
DEFAULT_FOLDING = {"mse": 1.0, "lncc": 100.0, "dice": 100.0, "ngf": 100.0, "mi": 100.0, "mind": 100.0}
# The paper penalises the velocity's gradient in multi alone. nonprob, our default, does so too: without it maps fold.
DIFFUSED = ("multi", "nonprob")
EPOCH_STEPS = 100  # steps of an epoch where pairs are drawn at random from a cohort


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that decides a training run, except its cohort and its folder.

    `weights` holds the loss weights that differ from the defaults: similarity 1, folding (of R2Nets) and diffusion
    by similarity (DEFAULT_FOLDING, DEFAULT_DIFFUSION), the latter where the velocity estimator has it (DIFFUSED),
    kl (of prob) the square of `image_sigma`, the rest 0: dice (soft Dice of labels beside the similarity), kinetic
    (energy of the velocity's mean over time; of an affine-cpab's displacement), bending, inverse_consistency and
    gradicon (of both directions), flow_consistency_data and flow_consistency_domain (the flow's own inverse). With mse,
    weights similarity 1 and kl sigma^2 are VoxelMorph's 1 / sigma^2 and 1.
    `prior_lambda` is the precision of prob's prior (VoxelMorph's lambda), `weight_decay` AdamW's. `augment` is
    drawn anew for every pair from `seed` and the step. `one_contrast`: both painted images of a pair have the same
    greys; with mse and lncc, which compare them, always. `accumulate`: steps whose mean gradient makes one update.
    `mixed_precision`: the U-Net computes in half precision, which GPUs do faster. `devices`: over how many a batch
    is shared out. `shape` is the training grid in voxels, None derives it from the first training image. `epochs`
    counts passes over given pairs, or 100 steps of a cohort; `steps`, where given, counts steps instead. `schedule`
    cosine lets the learning rate fall to 0 over all of them. `validate_every` is in steps, 0 means every epoch.
    `clipnorm` 0 is off.
    """

    model: NetworkConfig = field(default_factory=NetworkConfig)
    similarity: TrainSimilarity = "mse"
    weights: dict[str, float] = field(default_factory=dict)
    image_sigma: float = 0.02
    prior_lambda: float = 25.0
    align: Align = "affine"
    synthesis: Synthesis = "none"
    contrast: Contrast = "t1"
    one_contrast: bool = False
    skull: Skull = "strip"
    augment: tuple[Augment, ...] = ()
    shape: tuple[int, ...] | None = None
    clip: tuple[float, float] | None = None
    epochs: int = 30
    steps: int | None = None
    batch_size: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"
    clipnorm: float = 0.0
    weight_decay: float = 0.0
    validate_every: int = 0
    validation_pairs: int = 12
    seed: int = 0
    workers: int = 2
    mixed_precision: bool = False
    device: str = "auto"
    devices: int = 1
    threads: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_choice("similarity", self.similarity, TrainSimilarity)
        check_choice("align", self.align, Align)
        check_choice("synthesis", self.synthesis, Synthesis)
        check_choice("contrast", self.contrast, Contrast)
        check_choice("skull", self.skull, Skull)
        check_choice("schedule", self.schedule, Schedule)
        check_device(self.device)
        for kind in self.augment:
            check_choice("augment", kind, Augment)
        for name in ("epochs", "batch_size", "accumulate", "validation_pairs", "workers", "devices"):
            check_count(name, getattr(self, name), least=1)
        if self.batch_size % self.devices:
            raise ConfigError(
                "each device takes an equal share of a batch: give a batch_size that is a multiple of devices. "
                f"Received: batch_size={self.batch_size}, devices={self.devices}"
            )
        if self.steps is not None:
            check_count("steps", self.steps, least=1)
        for name in ("validate_every", "seed", "threads"):
            check_count(name, getattr(self, name), least=0)
        check_seed(self.seed)
        for name in ("learning_rate", "image_sigma", "prior_lambda"):
            check_positive(name, getattr(self, name))
        for name in ("clipnorm", "weight_decay"):
            check_not_negative(name, getattr(self, name))
        check_weights(self.weights)
        self._check_parts()
        self._check_shapes()
        if self.shape is not None:
            check_list("shape", self.shape)
            for value in self.shape:
                check_count("shape", value, least=8)
        if self.clip is not None and (len(self.clip) != 2 or not self.clip[0] < self.clip[1]):
            raise ConfigError(f"clip needs a lower and a higher intensity. Received: clip={self.clip}")

    def _check_shapes(self) -> None:
        if self.synthesis == "shapes" and "warp" not in self.augment:
            raise ConfigError(
                "a pair of random shapes is one map, warped twice: add warp to --augment. "
                f"Received: augment={','.join(self.augment) or 'none'}"
            )

    def _check_parts(self) -> None:
        weights = self.loss_weights
        if (weights["kl"] > 0 or self.weights.get("kl", 0) > 0) and self.model.velocity != "prob":
            raise ConfigError(
                "the weight kl needs a velocity with a variance: --velocity prob. "
                f"Received: velocity={self.model.velocity!r}"
            )
        if self.similarity == "dice" and "dice" in self.weights:
            raise ConfigError("the similarity is dice already: give its weight as similarity, not as dice")
        if self.model.two_phase and any(weights[name] > 0 for name in BOTH_DIRECTIONS):
            raise ConfigError(
                f"{' and '.join(BOTH_DIRECTIONS)} look at both directions, which phase 2 of {self.model.network} does "
                "not have; leave them out or train another --network"
            )
        if self.model.integrator == "residual" and any(weights[name] > 0 for name in FLOW_CONSISTENCIES):
            raise ConfigError(
                "flow_consistency needs a flow that can be run backwards: --integrator flow or scaling_squaring. "
                "Received: integrator='residual'"
            )

    @property
    def loss_weights(self) -> dict[str, float]:
        """All loss weights, defaults filled in."""
        folding = DEFAULT_FOLDING[self.similarity] if self.model.residual else 0.0
        defaults = dict.fromkeys(LOSS_PARTS, 0.0) | {"similarity": 1.0, "folding": folding}
        if self.model.velocity in DIFFUSED:
            defaults["diffusion"] = DEFAULT_DIFFUSION[self.similarity]
        if self.model.velocity == "prob":
            defaults["kl"] = self.image_sigma**2
        phase_two = {"kl": 0.0} if self.model.two_phase else {}  # which samples nothing; its branches do
        return defaults | self.weights | phase_two

    @property
    def uses_labels(self) -> bool:
        """Whether the loss needs label maps."""
        return self.similarity == "dice" or self.loss_weights["dice"] > 0

    @classmethod
    def from_flat(cls, values: dict[str, Any]) -> TrainConfig:
        """Build from one flat table, network settings beside training settings, as in a TOML file.

        `spacing` may be one number; `ndim` follows it, and in the end the images.

        Raises:
            ConfigError: an unknown key (the known ones are named), or a value outside its choices.
        """
        network = {f.name for f in dataclasses.fields(NetworkConfig)}
        training = {f.name for f in dataclasses.fields(cls)} - {"model"}
        unknown = sorted(set(values) - network - training)
        if unknown:
            known = ", ".join(sorted(network | training))
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {known}")
        own = {k: v for k, v in values.items() if k in network}
        if "spacing" in own:
            spacing = own["spacing"]
            own["spacing"] = [spacing] * 3 if isinstance(spacing, (int, float)) else spacing
            own["ndim"] = len(own["spacing"])
        model = NetworkConfig.from_dict(own)
        return cls.from_dict({"model": model, **{k: v for k, v in values.items() if k in training}})

    def to_flat(self) -> dict[str, Any]:
        """One flat table that `from_flat` reads back."""
        values = self.to_dict()
        return values.pop("model") | values


FLOW_CONSISTENCIES = ("flow_consistency_data", "flow_consistency_domain")
BOTH_DIRECTIONS = ("inverse_consistency", "gradicon")
LOSS_PARTS = (
    "similarity", "dice", "folding", "diffusion", "kinetic", "bending", "kl", *BOTH_DIRECTIONS, *FLOW_CONSISTENCIES,
)  # fmt: skip


def check_weights(weights: dict[str, float]) -> None:
    """Raise ConfigError unless weights maps names of loss parts to finite numbers of at least 0."""
    if not isinstance(weights, dict):
        raise ConfigError(f"weights must map names to numbers. Received: weights={weights!r}")
    for name, value in weights.items():
        check_choice("weights", name, LOSS_PARTS)
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ConfigError(f"a weight is a number of at least 0. Received: weights {name}={value!r}")


RefinePreset = Literal["none", "fast", "default", "best"]
RegisterSimilarity = Literal["lncc", "mse", "ngf", "mi", "mind"]
Guide = Literal["labels"]
RegisterTransform = Literal["flow", "affine", "affine-diff", "cpab", "affine-cpab"]
Interpolation = Literal["linear", "nearest", "bspline"]
Format = Literal["itk", "h5", "x5", "fsl"]


AUTO = "auto"  # a model that ships, chosen by what the images show


@dataclass(frozen=True, kw_only=True)
class RegisterConfig(Settings):
    """How one pair is registered.

    `init` is a way to find the affine or the path of a transform file that is used as it is. `model` is a model
    folder, the name of one that ships, auto or none. `refine` is a preset or a number of steps at the finest level.
    `fill` None means moving's minimum. `boxes`: of CPAB's tessellation along each axis. `formats`: of the transforms,
    beside ITK's files, which are always written.
    """

    init: str = "affine"
    model: str = AUTO
    transform: RegisterTransform = "flow"
    boxes: int = 4
    refine: RefinePreset | int = "default"
    similarity: RegisterSimilarity = "lncc"
    radius: int = 2
    guide: tuple[Guide, ...] = ()
    interpolation: Interpolation = "linear"
    formats: tuple[Format, ...] = ("itk", "h5")
    clip: tuple[float, float] | None = None
    fill: float | None = None
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_choice("transform", self.transform, RegisterTransform)
        check_choice("similarity", self.similarity, RegisterSimilarity)
        check_choice("interpolation", self.interpolation, Interpolation)
        check_count("radius", self.radius, least=1)
        check_count("boxes", self.boxes, least=1)
        for guide in self.guide:
            check_choice("guide", guide, Guide)
        for name in self.formats:
            check_choice("formats", name, Format)
        if isinstance(self.refine, int):
            check_count("refine", self.refine, least=0)
        else:
            check_choice("refine", self.refine, RefinePreset)
        check_count("threads", self.threads, least=0)
        check_seed(self.seed)
        check_device(self.device)
        # float32 holds the moved image; its largest value is 3.4e38.
        if self.fill is not None and not abs(self.fill) <= 3.4e38:
            raise ConfigError(f"fill must be a finite number that float32 holds. Received: fill={self.fill}")
        if self.clip is not None and (len(self.clip) != 2 or not self.clip[0] < self.clip[1]):
            raise ConfigError(f"clip needs a lower and a higher intensity. Received: clip={self.clip}")
