"""All jobs of a table: what is known is kept, what is missing is done, and results.csv tells of it after each."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2reg.errors import ConfigError, OutputError
from r2reg.evaluation.engine import Job, executor, known_result, run_all
from r2reg.evaluation.processes import environment
from r2reg.evaluation.results import ENVIRONMENT_FILE, RESULTS_FILE, RUNS, write_results
from r2reg.io.files import atomic_path

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Where results go, and what does the work.

    Attributes:
        output: gets results.csv, labels.csv and environment.json. columns: of results.csv.
        jobs, scheduler: see `engine.executor`. threads: of each job.
    """

    output: Path
    columns: Sequence[str]
    jobs: int = 1
    scheduler: str = ""
    threads: int = 1

    def go(
        self,
        todo: Sequence[Job],
        told: Callable[[Row], str],
        say: Callable[[str], None],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> list[Row]:
        """Do what is missing; the rows in the order of the jobs.

        Args:
            told: a row in a few words. say: takes a line per result.
            resume: keep what was done with the same inputs and settings. overwrite: begin again.
        Raises:
            ConfigError: a scheduler that cannot be reached.
            OutputError: results are there and neither is asked for, or the folder cannot be written.
        """
        if resume and overwrite:
            raise ConfigError("--resume and --overwrite exclude each other")
        if (self.output / RESULTS_FILE).exists() and not (resume or overwrite):
            raise OutputError(f"{self.output}: holds results already; give --resume, --overwrite or another folder")
        with executor(self.jobs, self.scheduler) as pool:
            self._open([] if resume else todo)
            rows = {job.folder: known for job in todo if (known := known_result(job))}
            self._write(todo, rows)
            missing = [job for job in todo if job.folder not in rows]
            progress = Progress(len(missing), say)
            for job, row in run_all(missing, pool):
                rows[job.folder] = row
                self._write(todo, rows)
                progress.told(row, told(row))
        return [rows[job.folder] for job in todo]

    def _open(self, replaced: Sequence[Job]) -> None:
        try:
            for job in replaced:
                shutil.rmtree(job.folder, ignore_errors=True)
            if replaced:
                shutil.rmtree(self.output / RUNS, ignore_errors=True)
            self.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise OutputError(f"{self.output}: cannot be used for results ({reason}); choose another folder") from None
        with atomic_path(self.output / ENVIRONMENT_FILE) as path:
            path.write_text(
                json.dumps(environment(self.threads) | {"jobs": self.jobs}, indent=2) + "\n", encoding="utf-8"
            )

    def _write(self, todo: Sequence[Job], rows: dict[Path, Row]) -> None:
        write_results(self.output, self.columns, [rows.get(job.folder) for job in todo])


class Progress:
    """How far a run is, a line per result."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self.total, self.say = total, say
        self.done, self.began = 0, time.monotonic()

    def told(self, row: dict[str, Any], what: str) -> None:
        """One more."""
        self.done += 1
        left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        hours, rest = divmod(round(left), 3600)
        name = " ".join(str(row[part]) for part in ("id", "method") if part in row)
        self.say(f"{self.done}/{self.total} {name}: {what}, {hours}:{rest // 60:02}:{rest % 60:02} left")
