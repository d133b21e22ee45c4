"""Files are written whole or not at all."""

import hashlib
import os
import subprocess
import sys

import pytest

from r2reg.errors import OutputError
from r2reg.io.files import atomic_path, check_output, full_suffix, sha256


def test_the_temporary_file_keeps_folder_and_ending(tmp_path):
    final = tmp_path / "a.b.nii.gz"
    with atomic_path(final) as temporary:
        assert temporary.parent == tmp_path
        assert full_suffix(temporary) == ".nii.gz"
        temporary.write_text("x", encoding="utf-8")
        assert not final.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.b.nii.gz"]


def test_the_file_gets_the_mode_that_the_umask_allows(tmp_path):
    before = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "a.csv") as temporary:
            temporary.write_text("x", encoding="utf-8")
    finally:
        os.umask(before)
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    final = tmp_path / "a.csv"
    final.write_text("old", encoding="utf-8")

    def write():
        with atomic_path(final) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert final.read_text(encoding="utf-8") == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_one_line(tmp_path):
    # A limit on the size of files stands in for a full disk: the write fails half way with an OSError.
    script = (
        "import resource, sys, numpy as np\n"
        "from r2reg.errors import OutputError\n"
        "from r2reg.geometry.grid import Grid\n"
        "from r2reg.io.images import Volume, write_image\n"
        "volume = Volume(np.random.rand(40, 40, 40).astype('f4'), Grid((40, 40, 40), np.eye(4)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    write_image(sys.argv[1], volume.array, volume)\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    for name in ("a.nii.gz", "a.nii", "a.mha", "a.nrrd"):
        run = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, encoding="utf-8", check=True
        )
        assert run.stdout.startswith(f"{tmp_path / name}: cannot be written ("), (name, run.stdout)
        assert run.stdout.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is read-only; choose another"):
        check_output(tmp_path / "a.csv", overwrite=False)
    tmp_path.chmod(0o700)


def test_a_read_only_folder_is_noticed_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="is read-only; choose another"):
        check_output(tmp_path / "a.csv", overwrite=False)


def test_outputs_are_checked_before_work(tmp_path):
    (tmp_path / "there").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="exists already; give --overwrite"):
        check_output(tmp_path / "there", overwrite=False)
    assert check_output(tmp_path / "there", overwrite=True) == tmp_path / "there"
    with pytest.raises(OutputError, match="does not exist; create it"):
        check_output(tmp_path / "no" / "a.csv", overwrite=True)
    with pytest.raises(OutputError, match="is a folder; name a file"):
        check_output(tmp_path, overwrite=True)


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"r2reg" * 300_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"r2reg" * 300_000).hexdigest()
