"""Native libraries are muted, Python is not."""

import subprocess
import sys

CODE = """
import logging, os, sys, threading
from r2reg.cli.common import _set_up_logging
from r2reg.io.stderr import native_stderr_muted

_set_up_logging(verbose=0, quiet=False)
def say(): logging.getLogger("r2reg").warning("thread")
with native_stderr_muted:
    os.write(2, b"native")
    print("python", file=sys.stderr)
    with native_stderr_muted:
        other = threading.Thread(target=say)
        other.start(); other.join()
    os.write(2, b"native after the inner block")
os.write(2, b"heard again\\n")
try:
    with native_stderr_muted: raise ValueError
except ValueError:
    print("raised", file=sys.stderr)
os.close(2)
with native_stderr_muted:
    print("no stderr at all")
"""


def test_only_what_native_code_prints_is_muted():
    process = subprocess.run([sys.executable, "-c", CODE], capture_output=True, encoding="utf-8", check=False)
    assert process.stderr.splitlines() == ["python", "thread", "heard again", "raised"]
    assert process.stdout == "no stderr at all\n"
    assert process.returncode == 0
