"""Trainings side by side."""

import os
import signal
import subprocess
import sys
import time

import pytest

from r2reg.studies.workers import in_processes

SCRIPT = """
import os, signal, time
from r2reg.studies.workers import in_processes

def note(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_processes(note, ("{path}",), [()] * 5)
"""


def test_results_are_in_order_and_an_error_ends_it():
    assert in_processes(divmod, (), [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
    assert in_processes(divmod, (7,), [(2,), (4,)]) == [(3, 1), (1, 3)]
    with pytest.raises(ZeroDivisionError):
        in_processes(divmod, (1,), [(0,)])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_study_leaves_no_process_behind(tmp_path, number):
    script, noted = tmp_path / "study.py", tmp_path / "pid"
    script.write_text(SCRIPT.format(path=noted), encoding="utf-8")
    study = subprocess.Popen([sys.executable, str(script)], start_new_session=True, stderr=subprocess.DEVNULL)
    until(lambda: noted.exists() and noted.read_text(encoding="utf-8"))
    worker = int(noted.read_text(encoding="utf-8"))
    if number == signal.SIGINT:  # as of a terminal: to all of them
        os.killpg(study.pid, number)
    else:
        study.send_signal(number)
    study.wait(60)
    until(lambda: not os.path.exists(f"/proc/{worker}"))


def until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)
