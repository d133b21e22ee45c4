"""The card of a run, README.md: what it is, how it was made, how well it does."""

from __future__ import annotations

from pathlib import Path

from r2reg.config import TrainConfig
from r2reg.io.files import atomic_path
from r2reg.training.dataset import Dataset


def toml_value(value: object) -> str:
    """A setting as TOML writes it: text, number, truth value, list, or inline table."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def to_toml(config: TrainConfig) -> str:
    """All settings as a TOML file that `--config` reads; what has no value (None) stands as a comment."""
    lines = ["# Settings of `r2reg train --config FILE.toml`; options on the command line win over them."]
    for name, value in config.to_flat().items():
        if name == "ndim":  # decided by the images
            continue
        lines.append(f"# {name} = (not set)" if value is None else f"{name} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def write_card(
    path: Path,
    config: TrainConfig,
    dataset: Dataset,
    seen: tuple[int, ...],
    best: dict[str, float],
    sha256: str,
    versions: dict[str, str],
    begun: str | None = None,
) -> None:
    """What the model is, what it was trained on, how good it is and how to use it, in Markdown.

    Args:
        seen: shape of what one forward pass sees.
        begun: SHA-256 of the weights that the training began with, where they were not random.
    """
    held_out = "held-out" if dataset.held_out else "**not held out: the training pairs themselves**"
    painted = {"none": "", "labels": " painted from label maps", "shapes": ", painted maps of random shapes"}
    scores = "\n".join(f"| {name} | {value:.5g} |" for name, value in best.items())
    used = ", ".join(f"{k} {v}" for k, v in versions.items())
    first = f"- Begun with the weights of another model, SHA-256 `{begun}`.\n" if begun else ""
    shape = " x ".join(map(str, seen))
    spacing = " x ".join(f"{s:g}" for s in config.model.spacing)
    text = f"""# {config.model.network}

A registration network trained with r2reg. Use it with
`r2reg register MOVING FIXED --model THIS_FOLDER -o OUT`.

- Images: {len(dataset.items)} prepared{painted[config.synthesis]}, {shape} voxels of {spacing} mm.
- Training pairs: {len(dataset.training)}.
- Validation: {len(dataset.validation)} pairs, {held_out}.
- Weights: `model.weights.h5`, SHA-256 `{sha256}`, best on validation.
{first}- Versions: {used}.

## Best validation

| value | |
| --- | --- |
{scores}

## Settings

```toml
{to_toml(config)}```
"""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
