"""`r2reg train` as a user meets it: options, files, errors, signals."""

import signal
import subprocess
import sys
import time
import tomllib

import click
import nibabel
import numpy as np
import pytest
from click.testing import CliRunner

from r2reg.cli.train import Words, merge, train
from r2reg.config import TrainConfig
from r2reg.errors import ConfigError

SMALL = ["--encoder", "4,8", "--decoder", "8,8,8,4,3", "--blocks", "1", "--align", "none", "--threads", "2"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A cohort of three smooth blobs on 16^3 voxels of 2 mm."""
    folder = tmp_path_factory.mktemp("cohort")
    index = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), axis=-1)
    for number in range(3):
        image = np.exp(-((index - 7 - number / 2) ** 2).sum(axis=-1) / 30).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([2.0, 2.0, 2.0, 1.0])), folder / f"{number}.nii.gz")
    (folder / "cohort.csv").write_text("image\n0.nii.gz\n1.nii.gz\n2.nii.gz\n", encoding="utf-8")
    return folder / "cohort.csv"


def r2reg(*arguments, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "r2reg.cli", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **kwargs,
    )


def wait_for(path, process):
    """Until a file exists; fail where the process ends first."""
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(cohort, tmp_path, number):
    run = tmp_path / "run"
    process = r2reg(cohort, "-o", run, *SMALL, "--steps", 100_000, "--validate-every", 5)
    wait_for(run / "last.ckpt", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors[-2000:]
    assert "r2reg: interrupted" in errors
    assert "Traceback" not in errors
    with np.load(run / "last.ckpt") as file:
        step = int(file["meta"].tobytes().decode().split('"step": ')[1].split(",")[0])
    assert step >= 5
    if number == signal.SIGINT:
        again = r2reg(cohort, "-o", run, *SMALL, "--steps", step + 2, "--resume")
        output, errors = again.communicate(timeout=60)
        assert again.returncode == 0, errors[-2000:]
        assert f"going on from step {step}" in errors
        assert f"{step + 2} steps" in output


def test_errors_are_one_line(cohort, tmp_path):
    (tmp_path / "bad.csv").write_text("image,colour\na.nii,red\n", encoding="utf-8")
    process = r2reg(tmp_path / "bad.csv", "-o", tmp_path / "run")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"TableError: {tmp_path}/bad.csv: unknown column 'colour'; known are image")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["c.csv"],
        ["c.csv", "-o", "run", "--network", "unet"],
        ["c.csv", "-o", "run", "--steps", "0"],
        ["c.csv", "-o", "run", "--shape", "a,b"],
        ["c.csv", "-o", "run", "--epochs", "1", "--steps", "1"],
        ["c.csv", "-o", "run", "--weights", "diffusion"],
    ],
)
def test_wrong_usage_exits_with_2(arguments):
    assert CliRunner().invoke(train, arguments).exit_code == 2


def test_written_config_is_the_config_that_is_read(tmp_path):
    arguments = [
        "--network",
        "svf-r2net",
        "--weights",
        "diffusion=0.5",
        "--shape",
        "32x40x48",
        "--spacing",
        "3",
    ]
    written = CliRunner().invoke(train, [*arguments, "--clip", "-1000", "400", "--write-config"])
    assert written.exit_code == 0
    values = tomllib.loads(written.output)
    assert values["spacing"] == [3.0, 3.0, 3.0]
    config = TrainConfig.from_flat(values)
    assert config.weights == {"diffusion": 0.5}
    assert (config.shape, config.clip) == ((32, 40, 48), (-1000.0, 400.0))
    (tmp_path / "c.toml").write_text(written.output, encoding="utf-8")
    again = CliRunner().invoke(train, ["--config", str(tmp_path / "c.toml"), "--write-config"])
    assert again.output == written.output


def test_every_setting_is_an_option():
    options = {parameter.name for parameter in train.params}
    assert set(TrainConfig().to_flat()) - options == {"ndim"}  # that is the images'


def test_options_win_over_the_file():
    file = {"steps": 10, "seed": 3, "weights": {"dice": 1.0, "folding": 2.0}}
    config = merge(file, {"seed": 4, "epochs": 2, "weights": ("folding=0",), "similarity": None})
    assert (config.seed, config.steps, config.epochs) == (4, None, 2)
    assert config.weights == {"dice": 1.0, "folding": 0.0}


def test_bad_config_files(tmp_path):
    def error(text):
        (tmp_path / "c.toml").write_text(text, encoding="utf-8")
        return CliRunner().invoke(train, ["--config", str(tmp_path / "c.toml"), "--write-config"])

    assert error("stepps = 3").exit_code == 1
    assert "unknown setting stepps; known are accumulate" in error("stepps = 3").output
    assert "is not TOML" in error("steps = ").output
    assert "steps must be a whole number" in error("steps = 'many'").output
    missing = CliRunner().invoke(train, ["--config", str(tmp_path / "none.toml"), "--write-config"])
    assert (missing.exit_code, "cannot be read" in missing.output) == (1, True)
    with pytest.raises(ConfigError, match="weights must be one of"):
        merge({"weights": {"mse": 1}}, {})


def test_help_names_defaults_and_an_example():
    text = CliRunner().invoke(train, ["--help"]).output
    assert "r2reg train cohort.csv -o run" in text
    assert "[default: 0.0001]" in text


@pytest.mark.parametrize(
    "given",
    [
        {"scheme": "rk4"},
        {"network": "vm-diff", "spectral_norm": "kernel"},
        {"velocity": "prob", "up_filters": 4},
        {"overlap": 4},
        {"contrast": "random"},
        {"prior_lambda": 3.0},
    ],
)
def test_an_option_without_effect_is_refused(given):
    with pytest.raises(click.UsageError, match="has no effect here: it needs"):
        merge({}, given)
    assert merge(given, {})  # a file may list them all


def test_augment_none_undoes_the_file():
    assert merge({"augment": ["flip"]}, {"augment": ()}).augment == ()
    assert Words().convert("none", None, None) == ()


def test_two_devices_share_a_batch(cohort, tmp_path):
    """The CPU as two devices: the weights are those of one."""
    found = []
    for devices in (1, 2):
        run = tmp_path / str(devices)
        options = ["--steps", 3, "--batch-size", 2, "--learning-rate", 1e-3, "--device", "cpu", "--devices", devices]
        process = r2reg(cohort, "-o", run, *SMALL, *options)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
        with np.load(run / "last.ckpt") as file:
            found.append({name: file[name] for name in file.files if name != "meta"})
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=0, atol=1e-5)


def test_a_batch_that_devices_cannot_share():
    with pytest.raises(ConfigError, match="multiple of devices"):
        merge({}, {"devices": 2, "batch_size": 3})


@pytest.mark.parametrize(
    "more", [["--devices", 3, "--batch-size", 3], ["--devices", 2, "--batch-size", 2, "--clipnorm", 1]]
)
def test_devices_that_cannot_be_had_leave_the_old_run(cohort, tmp_path, more):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("the old one", encoding="utf-8")
    cpus = ["--device", "cpu"] if more[1] == 2 else ["--device", "auto"]
    process = r2reg(cohort, "-o", run, *SMALL, *more, *cpus, "--overwrite")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "ConfigError: --" in errors
    assert (run / "config.json").read_text(encoding="utf-8") == "the old one"
