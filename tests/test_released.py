"""Models that ship: by name, checked against their checksums. A small one is put in their place."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from r2reg import released
from r2reg.cli.models import models
from r2reg.cli.register import register
from r2reg.config import NetworkConfig
from r2reg.errors import ModelError
from r2reg.evaluation.methods import parse_method
from r2reg.geometry.grid import Grid
from r2reg.networks.build import build_network
from r2reg.networks.saving import load_model, save_model
from r2reg.registration.network import network_grid
from r2reg.released import CHECKSUMS, find_model, names, shipped_folder, verify


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The folder of the models, with one in it called tiny."""
    config = NetworkConfig(network="svf-r2net", encoder=(2, 2), decoder=(2, 2, 2, 2, 3), up_filters=2, blocks=2)
    save_model(tmp_path / "tiny", build_network(config, (8, 8, 8)), config, {})
    (tmp_path / "tiny" / "README.md").write_text("# tiny\n\nOne for the tests. Not good.\n", encoding="utf-8")
    files = [tmp_path / "tiny" / name for name in ("config.json", "model.weights.h5")]
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  tiny/{file.name}\n" for file in files]
    (tmp_path / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(released, "shipped_folder", lambda: tmp_path)
    return tmp_path


def test_found_by_name_or_by_folder(shipped, tmp_path_factory, monkeypatch):
    assert names() == ["tiny"]
    assert find_model("tiny") == find_model(shipped / "tiny") == shipped / "tiny"
    assert load_model(find_model("tiny")).network.network == "svf-r2net"
    assert parse_method("tiny+none").check() is None
    assert parse_method("tiny").identity()["model"] == parse_method(str(shipped / "tiny")).identity()["model"]
    with pytest.raises(ModelError, match="large: is neither a folder nor a model that ships; known are tiny"):
        find_model("large")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("tiny").mkdir()
    assert find_model("tiny") == shipped / "tiny"  # a folder that is no model does not hide it
    assert parse_method("tiny").model == "tiny"
    with pytest.raises(ModelError, match=r"is no folder of a model \(it holds no config.json\)"):
        find_model(shipped)


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["config.json", "model.weights.h5"])
def test_an_altered_file_stops(shipped, file, monkeypatch):
    alter(shipped / "tiny" / file)
    with pytest.raises(ModelError, match=rf"tiny/{file}: is not the file that shipped \(its SHA-256 differs\)"):
        find_model("tiny")
    monkeypatch.setattr(released, "shipped_folder", lambda: Path("elsewhere"))
    with pytest.raises(ModelError, match=rf"tiny/{file}: is not the file that shipped"):
        find_model(shipped / "tiny")


def test_a_folder_is_checked_where_checksums_name_it(shipped, monkeypatch):
    """A model of a clone beside the installation is; what somebody trained beside checksums of other files is not."""
    monkeypatch.setattr(released, "shipped_folder", lambda: Path("elsewhere"))
    assert find_model(shipped / "tiny") == shipped / "tiny"
    (shipped / "tiny").rename(shipped / "mine")
    (shipped / CHECKSUMS).write_text("# of other files\n\n0123 *data.csv\n", encoding="utf-8")
    assert find_model(shipped / "mine") == shipped / "mine"


def test_a_registration_by_altered_weights_stops(shipped, tmp_path_factory, write_nifti, left_only_a_report):
    folder = tmp_path_factory.mktemp("pair")
    for name in ("moving", "fixed"):
        write_nifti(folder / f"{name}.nii.gz", np.random.default_rng(0).random((12, 12, 12), dtype=np.float32))
    alter(shipped / "tiny" / "model.weights.h5")
    files = [str(folder / name) for name in ("moving.nii.gz", "fixed.nii.gz")]
    done = CliRunner().invoke(register, [*files, "-o", str(folder / "out"), "--model", "tiny", "--init", "none"])
    assert done.exit_code == 1
    assert "is not the file that shipped (its SHA-256 differs)" in done.output
    left_only_a_report(folder / "out")


@pytest.mark.parametrize(("name", "ndim"), [("brain", 2), ("anatomy-2d", 3)])
def test_images_of_another_dimension_are_told(name, ndim):
    message = rf"{name}: the model is for {5 - ndim}-D images, these are {ndim}-D; use another \(`r2reg models list`\)"
    with pytest.raises(ModelError, match=message):
        network_grid(load_model(find_model(name)), Grid((8,) * ndim, np.eye(ndim + 1)))


def test_a_missing_and_an_unlisted_file_stop(shipped):
    (shipped / "tiny" / "model.weights.h5").unlink()
    with pytest.raises(ModelError, match=r"model.weights.h5: is missing; install r2reg again"):
        verify("tiny")
    (shipped / CHECKSUMS).unlink()
    with pytest.raises(ModelError, match=r"config.json: is not the file that shipped"):
        verify("tiny")


def test_the_commands(shipped):
    run = CliRunner().invoke
    assert [row["name"] for row in json.loads(run(models, ["list", "--json"]).output)] == ["tiny"]
    assert "One for the tests" in run(models, ["list"]).output
    assert run(models, ["info", "tiny"]).output.startswith("# tiny")
    assert json.loads(run(models, ["info", "tiny", "--json"]).output)["network"]["network"] == "svf-r2net"
    assert run(models, ["verify"]).output == "tiny: as shipped\n"
    unknown = run(models, ["info", "large"])
    assert unknown.exit_code == 1
    (shipped / "tiny" / "config.json").write_text("{}", encoding="utf-8")
    assert run(models, ["verify", "tiny"]).exit_code == 1


def test_what_ships_is_whole_and_fits():
    for name in names():
        verify(name)
        load_model(shipped_folder() / name).check()
        assert released.describe(name).summary
    assert sum(path.stat().st_size for path in shipped_folder().rglob("*.h5")) < 20e6


def test_nothing_is_said_to_a_reader_that_stopped_reading():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "r2reg.cli", "models", "verify"]
    told = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert not told.stderr


def test_the_list_needs_no_keras():
    code = "import sys; from r2reg.released import names; names(); assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


DISPLACEMENTS = """
import sys
import numpy as np
from keras import ops
from r2reg.startup import start_backend
from r2reg.networks.branches import network_inputs
from r2reg.networks.saving import load_model
from r2reg.released import find_model, names

start_backend("cpu")
found = {}
for name in names():
    saved = load_model(find_model(name))
    axes = [np.linspace(-1, 1, 32, dtype="float32")] * saved.network.ndim
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)[None]
    images = [np.exp(-2 * ((x - shift) ** 2).sum(-1, keepdims=True)) for shift in (0.0, 0.1)]
    network = saved.build(x.shape[1:-1])
    displacement = network.predict_on_batch(network_inputs(saved, *images))["displacement"]
    found[name] = ops.convert_to_numpy(displacement)
np.savez(sys.argv[1], **found)
"""


@pytest.mark.slow
@pytest.mark.backends
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="compares other backends with TensorFlow")
def test_shipped_models_give_the_same_displacement_on_every_backend(tmp_path):
    found = {}
    for backend in ("tensorflow", keras.backend.backend()):
        file = tmp_path / f"{backend}.npz"
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", DISPLACEMENTS, str(file)], env=environment, check=True)
        with np.load(file) as held:
            found[backend] = dict(held)
    there, here = found.values()
    for name, displacement in there.items():
        assert np.abs(displacement).max() > 0.1, name
        np.testing.assert_allclose(here[name], displacement, atol=1e-4, err_msg=name)
