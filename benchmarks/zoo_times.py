"""What a training step and a forward pass of each network in zoo.py's table take, one after the other on one thread.

    python benchmarks/zoo_times.py TABLE [--size 48] [--runs 10]

TABLE is zoo.csv; its columns step_seconds and forward_seconds become medians over --runs, and the table is printed. A
step of a multi-scale network is the mean over its three parts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from results import read_rows
from zoo import COLUMNS, ZOO, report

PARTS = ("chunk", "coarse", "")


def measure(name: str, size: int, runs: int) -> dict[str, float]:
    """In this process."""
    from r2reg.startup import start_backend

    start_backend("cpu", 1, False, 0)
    from r2reg.config import NetworkConfig
    from r2reg.evaluation.cost import forward_pass, seconds_of, training_step

    options = dict(zip(ZOO[name][::2], ZOO[name][1::2], strict=True))
    settings = {option[2:].replace("-", "_"): value for option, value in options.items() if option != "--weights"}
    model = NetworkConfig(**settings)
    shape = (size,) * model.ndim
    parts = PARTS if model.two_phase else ("",)
    steps = [statistics.median(seconds_of(training_step(model, shape, part), runs)) for part in parts]
    forward = statistics.median(seconds_of(forward_pass(model, shape), runs))
    return {"step_seconds": round(statistics.fmean(steps), 4), "forward_seconds": round(forward, 4)}


def main() -> None:
    """Measure each network in a process of its own, and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--size", type=int, default=48, help="n of n^3 [%(default)s]")
    parser.add_argument("--runs", type=int, default=10, help="[%(default)s]")
    parser.add_argument("--name", choices=ZOO, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.name:
        print(json.dumps(measure(options.name, options.size, options.runs)))
        return
    rows = read_rows(options.table)
    for row in rows:
        command = [sys.executable, __file__, *sys.argv[1:], "--name", row["name"]]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8")
        found = json.loads(done.stdout.splitlines()[-1])
        print(row["name"], found, flush=True)
        row |= {key: str(value) for key, value in found.items()}
    from r2reg.io.tables import write_table

    write_table(options.table, rows, COLUMNS)
    print(report(rows))


if __name__ == "__main__":
    main()
