"""TensorBoard event files, written without TensorFlow so that every backend can."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Board:
    """Writes scalars and grey pictures into a new event file of a folder; a context manager.

    Args:
        folder: made if missing. first_step: steps done before; TensorBoard hides what an
            earlier, interrupted run wrote after them.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # The name that TensorBoard looks for; time and process keep runs apart.
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("wb"))
        self._write(file_version="brain.Event:2")
        # Events of the step from which a run goes on are good; purge those after it.
        self._write(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values, tag by tag, and flush."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(step=step, summary=summary)
        self._writer.flush()

    def picture(self, step: int, tag: str, image: np.ndarray) -> None:
        """Write a grey picture, (rows, columns) in [0, 1]."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        encoded = Summary.Image(
            height=image.shape[0], width=image.shape[1], colorspace=1, encoded_image_string=png(image)
        )
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=encoded)]))
        self._writer.flush()


def png(image: np.ndarray) -> bytes:
    """A grey picture, (rows, columns) in [0, 1], as an 8-bit PNG file."""
    grey = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    rows = np.insert(grey, 0, 0, axis=1)  # each row begins with its filter, 0: none

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    # Width, height, 8 bits, grey, and the three zeros of the standard's only methods without interlacing.
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
