"""Starting the Keras backend: quietly, on the wanted device, seeded; and saying which versions ran."""

from __future__ import annotations

import gc
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from r2reg import __version__
from r2reg.errors import ConfigError
from r2reg.io.stderr import native_stderr_muted

log = logging.getLogger(__name__)
# For plots and for wrappers that r2reg does not use; a fifth of the time that importing Keras takes.
UNUSED_BY_KERAS = ("matplotlib", "sklearn")
REPORTED_VERSIONS = ("keras", "tensorflow", "jax", "torch", "numpy", "nibabel", "SimpleITK")


def start_backend(
    device: str = "auto", threads: int = 0, deterministic: bool = False, seed: int = 0, devices: int = 1
) -> None:
    """Device, threads, determinism and seed, before the first tensor is made.

    Args:
        device: auto, cpu, gpu or gpu:K. threads: of the CPU, 0 for the backend's own choice.
        devices: as how many the CPU is to count, with device cpu.
    Raises:
        ConfigError: a GPU is asked for and the backend sees none.
    """
    if device.startswith("gpu:"):
        os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("gpu:")
    if device == "cpu":
        # Read by CUDA and by JAX when they start, so it works before the first tensor only.
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["JAX_NUM_CPU_DEVICES"] = str(devices)
    # TensorFlow's own allocator keeps freed memory. By malloc each large tensor is fresh pages from the system, and
    # clearing those takes half the time of a refinement at full size. Its bound: what the machine has.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(_physical_megabytes()))
    # TensorFlow leaves oneDNN's convolutions off where the CPU lacks VNNI; 3-D ones are half as fast without.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _native_chatter_muted(), _light_import():
        try:
            import keras
        except (ModuleNotFoundError, ValueError) as error:  # ValueError: a backend that Keras does not know
            chosen = os.environ.get("KERAS_BACKEND", "tensorflow")
            raise ConfigError(
                f"Keras' backend {chosen} cannot start: {error}; install it, or set KERAS_BACKEND=tensorflow"
            ) from None

        from r2reg.flow import backend

        gpus = backend.devices()["gpu"]
    if device.startswith("gpu") and not gpus:
        name = keras.backend.backend()
        raise ConfigError(
            f"--device {device}: {name} sees no GPU; install a build with GPU support or use --device cpu"
        )
    if devices > 1 and device == "cpu":
        try:
            backend.split_cpu(devices)
        except RuntimeError:
            log.warning("the backend has started already; its CPU stays one device")
    if threads:
        try:
            backend.set_threads(threads)
        except RuntimeError:
            log.warning("the backend has started already; --threads %d has no effect", threads)
    if deterministic:
        backend.set_deterministic()
    keras.utils.set_random_seed(seed)


def _physical_megabytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


@contextmanager
def _native_chatter_muted() -> Iterator[None]:
    """Keep what C++ libraries print while they load off stderr, unless r2reg is asked to be verbose.

    TensorFlow's notices (CPU instructions, no CUDA) come before its own log level counts. Python's errors are
    raised as ever.
    """
    if logging.getLogger("r2reg").isEnabledFor(logging.DEBUG):
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a warning for every new image shape
    with native_stderr_muted:
        yield


@contextmanager
def _light_import() -> Iterator[None]:
    """Import Keras and its backend within this, and both start and end of the process take half as long.

    Without UNUSED_BY_KERAS, which Keras can do without: as if they were not installed. And without looking for
    garbage: TensorFlow makes a million objects that stay. Frozen, they are not gone through at the end either.
    """
    if "keras" in sys.modules:
        yield
        return
    hidden = [name for name in UNUSED_BY_KERAS if name not in sys.modules]
    collects = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if collects:
            gc.enable()


def versions() -> dict[str, str]:
    """Of r2reg, Python and the packages that a result depends on."""
    found = {"r2reg": __version__, "python": platform.python_version()}
    for name in REPORTED_VERSIONS:
        try:
            found[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
