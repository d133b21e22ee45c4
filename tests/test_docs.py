"""The commands on the pages of docs/, run one after another as a reader would, on small phantoms."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from r2reg.geometry.grid import Grid
from r2reg.io.images import Volume, write_image
from r2reg.io.points import AXES, Points, write_points
from r2reg.phantom import labels_on, landmarks, painted, random_deformation

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ["README", "quick_start", "train", "synthesis", "study", "series", "pipelines", "benchmark"]
# In place of the thousands of steps, on fine grids, that a page asks for: whether it learns is tested elsewhere.
SMALLER = {
    r"--steps \d+": "--steps 2",
    r"--spacing 2\b": "--spacing 7",
    r"--spacing 4\b": "--spacing 10",
    "--shape 48x48x48": "--shape 16x16x16",
}
MADE = {  # page -> what its commands must have made
    "README": ["home/.bashrc", "home/.config/fish/completions/r2reg.fish"],
    "quick_start": ["result/report.html", "labels_on_fixed.nii.gz", "fixed_on_moving.nii.gz", "points_in_moving.csv"],
    "train": ["runs/fine/model.weights.h5", "with_network/moved.nii.gz"],
    "synthesis": ["runs/brain/model.weights.h5", "runs/anatomy/README.md"],
    "study": ["study/results.csv", "study/one/report.html", "study/two/metrics.json"],
    "series": ["bold_on_template.nii.gz", "bold_to_template_fsl.nii.gz"],
    "pipelines": ["work/register/registered/forward.h5", "registered/report.html"],
    "benchmark": ["report/report.html", "report/table1.tex", "cost/cost.md"],
}


@pytest.fixture
def folder(tmp_path):
    """What the pages take for granted: scans, labels, landmarks, a series, and tables of them."""
    affine = np.diag([-6.0, 6.0, 6.0, 1.0])  # LAS
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 13.5)
    grid, rng = Grid((28, 28, 28), affine), np.random.default_rng(0)
    for name in ("moving", "fixed", "t1", "template", "bold_mean", "a", "b", "c"):
        deformation = random_deformation(rng)
        labels = labels_on(grid, deformation)
        write_image(tmp_path / f"{name}.nii.gz", painted(labels, rng), Volume(labels, grid))
        write_image(tmp_path / f"{name}_labels.nii.gz", labels, Volume(labels, grid))
    points = Points(landmarks(rng, 9), AXES, tuple(("0",) * 3 for _ in range(9)))
    write_points(tmp_path / "fixed_points.csv", points)
    mean = nibabel.load(tmp_path / "bold_mean.nii.gz")
    series = np.stack([mean.get_fdata(dtype=np.float32) * k for k in (1.0, 1.1, 0.9)], axis=-1)
    nibabel.Nifti1Image(series, mean.affine).to_filename(tmp_path / "bold.nii.gz")
    (tmp_path / "cohort.csv").write_text("image,subject\na.nii.gz,a\nb.nii.gz,b\nc.nii.gz,c\n", encoding="utf-8")
    maps = "labels\na_labels.nii.gz\nb_labels.nii.gz\nc_labels.nii.gz\n"
    (tmp_path / "maps.csv").write_text(maps, encoding="utf-8")
    rows = [
        f"{m}.nii.gz,{f}.nii.gz,{m}_labels.nii.gz,{f}_labels.nii.gz,{i}"
        for m, f, i in (("a", "b", "one"), ("b", "c", "two"))
    ]
    (tmp_path / "pairs.csv").write_text(
        "\n".join(["moving,fixed,moving_labels,fixed_labels,id", *rows, ""]), encoding="utf-8"
    )
    (tmp_path / "home" / ".config" / "fish" / "completions").mkdir(parents=True)
    return tmp_path


def test_every_page_with_commands_is_run():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    assert {page for page, text in texts.items() if "```sh" in text or "```python" in text} == set(PAGES)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page, folder):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = [
        code if language == "sh" else f"python - << 'END'\n{code}END\n"
        for language, code in re.findall(r"```(sh|python)\n(.*?)```", text, re.S)
    ]
    script = "\n".join(blocks)
    for asked, smaller in SMALLER.items():
        script = re.sub(asked, smaller, script)
    variables = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
    }
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=variables, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in MADE[page]:
        assert (folder / name).stat().st_size > 0, name
