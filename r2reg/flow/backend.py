"""What differs by Keras backend: compiling small functions, gradients, devices. The only module that knows them.

Whole models are never compiled with XLA on a CPU: 3-D convolutions become 20 to 60 times slower there. Gathers,
shifted sums and elementwise arithmetic become several times faster, so just those are compiled, by `accelerate`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import keras

from r2reg.errors import ConfigError

Function = TypeVar("Function", bound=Callable[..., Any])


def accelerate(*static: str) -> Callable[[Function], Function]:
    """Decorator: compile a pure function of tensors with XLA where the backend has it.

    Args:
        static: names of arguments that are Python values; pass them by keyword, the rest by position.
    """

    def decorate(function: Function) -> Function:
        @functools.cache
        def compiled() -> Callable[..., Any]:
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                return tf.function(function, jit_compile=True, autograph=False)
            if keras.backend.backend() == "jax":
                import jax

                return jax.jit(function, static_argnames=static)
            return function

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return compiled()(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers made within compute in this policy, such as float32 or mixed_float16."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compiles() -> bool:
    """Whether `accelerate` compiles: once for each shape, which takes a while."""
    return keras.backend.backend() != "torch"


def custom_gradient(
    forward: Callable[[Any, Any], Any],
    gradients: Sequence[Callable[[Any, Any, Any], Any]],
) -> Callable[[Any, Any], Any]:
    """A function of two tensors whose gradients are separate functions, so an unused one costs nothing.

    On TensorFlow the gradient of a compiled function computes all its inputs' gradients; here the graph drops the
    one that nobody asks for (the scatter of a warp, when only the coordinates are learned). Other backends
    differentiate `forward` itself.

    Args:
        forward: (a, b) -> result.
        gradients: two functions (a, b, upstream) -> gradient in a, gradient in b.
    """
    if keras.backend.backend() != "tensorflow":
        return forward
    import tensorflow as tf

    @tf.custom_gradient
    def call(a: Any, b: Any) -> Any:
        def backward(upstream: Any) -> tuple[Any, ...]:
            return tuple(gradient(a, b, upstream) for gradient in gradients)

        return forward(a, b), backward

    return call


def gradient(function: Callable[[Any], Any], at: Any) -> Any:
    """Gradient of a scalar-valued function of one tensor, on any backend.

    Args:
        function: tensor -> scalar tensor.
        at: the tensor at which to differentiate.
    Returns:
        A tensor like `at`.
    """
    at = keras.ops.convert_to_tensor(at)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(at)
            value = function(at)
        return tape.gradient(value, at)
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(at)
    import torch

    at = at.detach().clone().requires_grad_(True)
    return torch.autograd.grad(function(at), at)[0]


def grid_sample(values: Any, coordinates: Any) -> Any | None:
    """PyTorch's own linear sampling, edges clamped; None on other backends and for shapes that it does not take.

    Args:
        values: (N, *S, C). coordinates: (N, *O, d), voxels of `values`.
    """
    if keras.backend.backend() != "torch":
        return None
    import torch

    if min(values.shape[1:-1]) < 2 or len(coordinates.shape) != len(values.shape):
        return None  # it divides by the extent, and wants places on a grid
    last = torch.tensor([n - 1 for n in values.shape[1:-1]], dtype=coordinates.dtype, device=coordinates.device)
    normal = (2 * coordinates / last - 1).flip(-1)
    moved = torch.nn.functional.grid_sample(
        values.movedim(-1, 1),
        normal.to(values.dtype),
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return moved.movedim(1, -1)


def devices() -> dict[str, int]:
    """How many devices of each kind the backend sees: {"cpu": n, "gpu": n}."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = len(tf.config.list_physical_devices("GPU"))
    elif keras.backend.backend() == "jax":
        import jax

        gpus = sum(d.platform in ("gpu", "cuda", "rocm") for d in jax.devices())
    else:
        import torch

        gpus = torch.cuda.device_count()
    return {"cpu": 1, "gpu": gpus}


def peak_gpu_bytes() -> int:
    """The largest amount of the first GPU's memory that tensors have taken so far."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    if keras.backend.backend() == "jax":
        import jax

        return int(jax.devices()[0].memory_stats()["peak_bytes_in_use"])
    import torch

    return int(torch.cuda.max_memory_allocated())


def split_cpu(count: int) -> None:
    """Have TensorFlow take the CPU for several devices; call it before the first tensor is made.

    Raises:
        RuntimeError: the backend has started already.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def _split_cpus() -> int:
    if keras.backend.backend() == "jax":
        import jax

        return len(jax.devices("cpu"))
    import tensorflow as tf

    return len(tf.config.list_logical_devices("CPU"))


class DataParallel:
    """Several devices, on which models are trained that are made in its `scope`: each has its share of a batch.

    By Keras' distribution on JAX, by TensorFlow's mirrored strategy there.

    Args:
        count: how many, the GPUs where there are any. 1: nothing is distributed.
    Raises:
        ConfigError: there are fewer, or the backend does not do it.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._distribution = self._start() if count > 1 else None

    def _start(self) -> Any:
        name, gpus = keras.backend.backend(), devices()["gpu"]
        if name == "torch":
            raise ConfigError("--devices: training on several devices needs KERAS_BACKEND=tensorflow or jax")
        kind, found = ("gpu", gpus) if gpus else ("cpu", _split_cpus())
        if found < self.count:
            raise ConfigError(
                f"--devices {self.count}: {name} sees {found} {kind.upper()}; give fewer, or --device cpu to try it"
            )
        names = [f"{kind}:{k}" for k in range(self.count)]
        if name == "jax":
            return keras.distribution.DataParallel(devices=names)
        import tensorflow as tf

        return tf.distribute.MirroredStrategy([name.upper() for name in names])

    @property
    def mirrored(self) -> bool:
        """Whether TensorFlow does it, which sums the gradients after all else has been done with them."""
        return self._distribution is not None and keras.backend.backend() == "tensorflow"

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """In which models are made and trained."""
        return contextlib.nullcontext() if self._distribution is None else self._distribution.scope()

    def shared_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch (N, ...), cut along its first axis where the backend wants that done for it."""
        if not self.mirrored:
            return batch
        strategy: Any = self._distribution

        def shares(values: Any) -> Any:
            parts = [values[k :: self.count] for k in range(self.count)]
            return strategy.experimental_distribute_values_from_function(
                lambda context: parts[context.replica_id_in_sync_group]
            )

        return {name: shares(values) for name, values in batch.items()}


def replicas() -> int:
    """Over how many devices TensorFlow will sum the gradients of a loss that is computed here; the others average."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def set_threads(threads: int) -> None:
    """Limit the CPU threads of the backend; call it before the first tensor is made.

    Raises:
        RuntimeError: the backend has started already (TensorFlow).
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)


def skip_graph_remapping() -> None:
    """Have TensorFlow leave the graphs' operations as they are.

    Its remapper fails on the gradient of a convolution with LeakyReLU, and alarms users on stderr; with oneDNN it joins
    a padding to the strided convolution behind it, and the result has another shape.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"remapping": False})


def set_deterministic() -> None:
    """Ask the backend for run-to-run identical results."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def jit_compile() -> bool | str:
    """The `jit_compile` of whole models: never on a CPU, Keras' own choice on a GPU."""
    return "auto" if devices()["gpu"] else False
