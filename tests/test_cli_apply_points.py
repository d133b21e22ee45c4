"""`r2reg apply` and `r2reg points` as a user calls them: help, outputs, errors, imports."""

import logging
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.main import main
from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.fields import write_displacement
from r2reg.io.images import Volume, read_image, read_labels, write_image
from r2reg.io.transforms import write_affine

GRID = Grid((10, 12, 14), [[-1, 0, 0, 4.5], [0, 0, 1.5, -9.75], [0, -2, 0, 11], [0, 0, 0, 1]])  # LIA
SHIFT = Affine(np.array([[1.0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))


@pytest.fixture(autouse=True)
def _keep_process_settings():
    """The commands set up logging and SIGTERM for the whole process."""
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    level, package_level = root.level, logging.getLogger("r2reg").level
    handler = signal.getsignal(signal.SIGTERM)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("r2reg").setLevel(package_level)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def files(tmp_path):
    """Inputs in one folder, an empty one for outputs."""
    image = np.random.default_rng(0).uniform(0, 100, GRID.shape).astype(np.float32)
    write_image(tmp_path / "fixed.nii.gz", image, Volume(image, GRID))
    write_image(tmp_path / "moving.nii.gz", image[::-1], Volume(image, GRID))
    labels = (image > 50).astype(np.int16) * 17
    write_image(tmp_path / "labels.nii.gz", labels, Volume(labels, GRID))
    write_affine(tmp_path / "affine.mat", SHIFT)
    write_displacement(tmp_path / "warp.nii.gz", Displacement(GRID, np.full((*GRID.shape, 3), 0.5, np.float32)))
    write_affine(tmp_path / "flat.mat", Affine(np.eye(3)))
    (tmp_path / "points.csv").write_text("id,x,y,z\na,1,2,3\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    return tmp_path


def call(folder, line: str):
    """Run `r2reg LINE` with names below the folder written as @name."""
    return CliRunner().invoke(main, line.replace("@", f"{folder}/").split())


APPLY = "apply -t @warp.nii.gz -t @affine.mat --reference @fixed.nii.gz -i @moving.nii.gz -o @out/moved.nii.gz"
LABELS = APPLY.replace("@moving", "@labels")
POINTS = "points -t @warp.nii.gz -t @affine.mat -i @points.csv -o @out/points.csv"


def test_apply_writes_the_image_on_the_reference(files):
    result = call(files, APPLY)
    assert result.exit_code == 0, result.output
    assert "wrote" in result.stderr
    assert result.stdout == ""
    moved = read_image(files / "out/moved.nii.gz")
    assert moved.grid == GRID
    assert [p.name for p in (files / "out").iterdir()] == ["moved.nii.gz"]


@pytest.mark.parametrize("interpolation", ["nearest", "label"])
def test_apply_keeps_the_type_of_labels(files, interpolation):
    line = LABELS + f" --interpolation {interpolation} -q"
    result = call(files, line)
    assert (result.exit_code, result.output) == (0, "")
    moved = read_labels(files / "out/moved.nii.gz")
    assert moved.array.dtype == np.int16
    assert set(np.unique(moved.array)) == {0, 17}


def test_apply_writes_other_formats(files):
    assert call(files, APPLY.replace("moved.nii.gz", "moved.mha")).exit_code == 0
    assert read_image(files / "out/moved.mha").grid == GRID


def test_apply_keeps_the_header_of_the_reference(files):
    header = nibabel.load(files / "fixed.nii.gz")
    header.header["descrip"] = b"the fixed one"
    header.to_filename(files / "fixed.nii.gz")
    assert call(files, APPLY).exit_code == 0
    assert nibabel.load(files / "out/moved.nii.gz").header["descrip"] == b"the fixed one"


def test_apply_takes_a_constant_image_and_one_volume_of_4d(files):
    array = np.stack([np.zeros(GRID.shape), np.full(GRID.shape, 3)], -1).astype(np.float32)
    nibabel.Nifti1Image(array, GRID.affine).to_filename(files / "moving.nii.gz")
    assert call(files, APPLY + " --volume 1").exit_code == 0
    assert (read_image(files / "out/moved.nii.gz", allow_constant=True).array == 3).all()


def test_inverting_twice_is_the_list(files):
    assert call(files, POINTS).exit_code == 0
    assert (files / "out/points.csv").read_text(encoding="utf-8") == "id,x,y,z\na,-1.5,1.5,3.5\n"
    back = POINTS.replace("@points.csv", "@out/points.csv").replace("-o @out/points.csv", "-o @out/back.csv")
    assert call(files, back + " --invert").exit_code == 0
    text = (files / "out/back.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    np.testing.assert_allclose([float(v) for v in text[1:]], [1, 2, 3], atol=1e-4)


def test_a_missing_inverse_is_told(files):
    (files / "points.csv").write_text("x,y,z\n-3.3,0,0\n", encoding="utf-8")  # RAS +3.3, from 2.8 + 0.5: inside
    assert call(files, POINTS.replace("-t @affine.mat ", "") + " --invert").stderr.startswith("wrote")
    steep = np.full((*GRID.shape, 3), 0.0, np.float32)
    steep[..., 0] = 4
    write_displacement(files / "warp.nii.gz", Displacement(GRID, steep))  # nothing is carried to R -4.5 .. -0.5
    (files / "points.csv").write_text("x,y,z\n2.5,0,0\n", encoding="utf-8")
    result = call(files, POINTS.replace("-t @affine.mat ", "") + " --invert --overwrite")
    assert result.exit_code == 0
    assert "1 of 1 points have no inverse within 0.001 mm" in result.stderr


def test_an_existing_output_needs_overwrite(files):
    for line, name in ((APPLY, "moved.nii.gz"), (POINTS, "points.csv")):
        (files / "out" / name).write_text("old", encoding="utf-8")
        result = call(files, line)
        assert result.exit_code == 1
        assert "exists already; give --overwrite" in result.stderr
        assert (files / "out" / name).read_text(encoding="utf-8") == "old"
        assert call(files, line + " --overwrite").exit_code == 0


BAD = {
    "no reference": (APPLY.replace("@fixed", "@no"), "ImageError: ", "no.nii.gz: no such file"),
    "no input": (APPLY.replace("@moving", "@no"), "ImageError: ", "no.nii.gz: no such file"),
    "no transform": (APPLY.replace("@affine", "@no"), "TransformError: ", "no.mat: no such file"),
    "2-D affine": (APPLY.replace("@affine", "@flat"), "TransformError: ", "cannot be chained"),
    "2-D list": (APPLY.replace("-t @warp.nii.gz -t @affine", "-t @flat"), "TransformError: ", "differ in"),
    "not labels": (APPLY + " --interpolation label", "ImageError: ", "not whole numbers"),
    "fill": (LABELS + " --interpolation nearest --fill 0.5", "ImageError: ", "cannot hold"),
    "ending": (APPLY.replace("moved.nii.gz", "moved.foo"), "OutputError: ", "end the name in"),
    "no folder": (APPLY.replace("@out/", "@no/"), "OutputError: ", "does not exist; create it"),
    "image as warp": (
        APPLY.replace("@affine.mat", "@fixed.nii.gz"),
        "TransformError: ",
        "displacement field",
    ),
    "no points": (POINTS.replace("@points", "@no"), "TableError: ", "no such file"),
    "no z": (POINTS.replace("-i @points", "-i @flat"), "TableError: ", "has no column z"),
    "inverted warp": (
        POINTS.replace("@warp.nii.gz", "[@warp.nii.gz,1]"),
        "TransformError: ",
        "give an affine",
    ),
}


@pytest.mark.parametrize(("line", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_leaves_nothing(files, line, kind, message):
    (files / "flat.csv").write_text("x,y\n1,2\n", encoding="utf-8")
    result = call(files, line)
    assert result.exit_code == 1
    assert result.stderr.startswith(kind)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert list((files / "out").iterdir()) == []


@pytest.mark.parametrize("line", ["apply", "points -t a.mat", APPLY + " --interpolation cubic", APPLY + " --no"])
def test_wrong_usage_exits_with_2(files, line):
    assert call(files, line).exit_code == 2


@pytest.mark.parametrize("command", ["apply", "points"])
def test_help_shows_an_example(command):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert f"r2reg {command} -t run/warp.nii.gz -t run/affine.mat" in result.output


@pytest.mark.parametrize("line", ["--help", "apply --help", APPLY, POINTS])
def test_no_backend_is_imported(files, line):
    script = (
        "import sys\n"
        "from r2reg.cli.main import main\n"
        "code = 0\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        "heavy = sorted({'keras', 'tensorflow', 'torch', 'jax', 'ants', 'matplotlib'} & set(sys.modules))\n"
        "if '--help' in sys.argv:\n"
        "    heavy += sorted({'SimpleITK', 'nibabel', 'scipy'} & set(sys.modules))\n"
        "print('heavy', heavy, 'code', code)\n"
    )
    arguments = line.replace("@", f"{files}/").split()
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout.splitlines()[-1] == "heavy [] code 0", run.stderr
