"""Spectral normalisation of convolutions: an upper bound of the norm that is smooth in the kernel, and the layer."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from r2reg.config import SpectralNorm
from r2reg.flow import backend

Tensor = Any

FREQUENCIES = 16  # per axis; bounds a 3-wide kernel's norm to 1.06 in 3-D, see `frequency_grid`
SQUARINGS = 7  # the trace norm of a 3x3 Gram matrix to the power 2^7 exceeds its largest eigenvalue by 0.9 %


def frequency_grid(shape: tuple[int, ...], frequencies: int = FREQUENCIES) -> tuple[np.ndarray, np.ndarray, float]:
    """Where to evaluate a kernel's Fourier transform so that its maximum is bounded in between as well.

    A trigonometric polynomial of degree n is at most 1 / cos(pi n / M) times its maximum over M equispaced points
    (Ehlich & Zeller 1964), along each axis. Half of the points suffice: a real kernel's transform is conjugate
    symmetric.

    Args:
        shape: the kernel's spatial shape, odd.
    Returns:
        (cosines, sines): (taps, points) each; and the factor >= 1 that turns the maximum into an upper bound.
    """
    axes, factor = [], 1.0
    for n in shape:
        degree = (n - 1) // 2
        points = max(frequencies, 8 * degree) if degree else 1
        axes.append(2 * math.pi * np.arange(points) / points)
        factor /= math.cos(math.pi * degree / points)
    axes[0] = axes[0][: len(axes[0]) // 2 + 1]
    omega = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))
    taps = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), axis=-1)
    phase = taps.reshape(-1, len(shape)) @ omega.T
    return np.cos(phase).astype("float32"), np.sin(phase).astype("float32"), factor


def largest_eigenvalue_bound(gram: Tensor, copies: int = 1) -> Tensor:
    """Upper bound (tr G^p / copies)^(1/p), p = 2^SQUARINGS, of the largest eigenvalue of each Gram matrix.

    Args:
        gram: (m, m, B), symmetric and positive semi-definite, every eigenvalue at least `copies` times.
    Returns:
        (B,). Smooth in the matrix, unlike the eigenvalue itself where two are equal.
    """
    tiny = 1e-30
    diagonal = ops.eye(gram.shape[0], dtype=gram.dtype)[..., None]
    trace = ops.sum(gram * diagonal, axis=(0, 1)) + tiny
    power, log_bound = gram / trace, ops.log(trace)
    for k in range(1, SQUARINGS + 1):
        power = _products(power)
        trace = ops.sum(power * diagonal, axis=(0, 1)) + tiny
        power, log_bound = power / trace, log_bound + ops.log(trace) / 2**k
    return ops.exp(log_bound - math.log(copies) / 2**SQUARINGS)


def _products(matrices: Tensor) -> Tensor:
    """A^T A of (n, m, B) matrices: elementwise, ten times as fast as a batch of small matrix products."""
    return ops.sum(matrices[:, :, None] * matrices[:, None], axis=0)


def _largest_gain(kernel: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Upper bound of the squared norm of a kernel's Fourier transform at each of B frequencies: (B,)."""
    inputs, outputs = kernel.shape[-2:]
    taps = ops.transpose(ops.reshape(kernel, (-1, inputs * outputs)))
    real = ops.reshape(ops.matmul(taps, cosines), (inputs, outputs, -1))
    imaginary = ops.reshape(ops.matmul(taps, sines), (inputs, outputs, -1))
    # A complex matrix A + iB has the singular values of the real [[A, -B], [B, A]], each twice.
    upper = ops.concatenate([real, -imaginary], axis=1)
    lower = ops.concatenate([imaginary, real], axis=1)
    return largest_eigenvalue_bound(_products(ops.concatenate([upper, lower], axis=0)), copies=2)


def operator_norm_bound(kernel: Tensor) -> Tensor:
    """Upper bound of a convolution's norm as an operator on L2, for zero or periodic borders, on any grid size.

    The convolution on all of Z^d has the norm max over frequencies of the norm of the kernel's Fourier transform;
    zero borders cut a piece out of it, which cannot be larger.

    Args:
        kernel: (*K, inputs, outputs), K odd.
    Returns:
        Scalar, at most about 7 % above the norm for 3^3 kernels, exact to 1 % for 1^d ones.
    """
    cosines, sines, factor = frequency_grid(tuple(kernel.shape[:-2]))
    return factor * _operator_norm(kernel, ops.convert_to_tensor(cosines), ops.convert_to_tensor(sines))


@backend.accelerate()
def _operator_norm(kernel: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    # Only the frequency of the maximum has a gradient: find it first, then look at that one alone.
    worst = ops.argmax(_largest_gain(ops.stop_gradient(kernel), cosines, sines))[None]
    gain = _largest_gain(kernel, ops.take(cosines, worst, axis=1), ops.take(sines, worst, axis=1))
    return ops.sqrt(gain[0])


def kernel_norm_bound(kernel: Tensor) -> Tensor:
    """Norm of the kernel reshaped to a (prod K * inputs, outputs) matrix: what the paper's code divides by.

    It can be smaller than the operator's norm by up to sqrt(prod K), 5.2 for a 3^3 kernel, so dividing by it does
    not bound the layer's Lipschitz constant by 1.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    return ops.sqrt(largest_eigenvalue_bound(_products(matrix[..., None]))[0])


class SpectralConvolution(keras.layers.Layer):
    """A convolution without bias, divided by its spectral norm ("operator") or its kernel's ("kernel").

    Args:
        filters: output channels. width: odd kernel width along each axis. ndim: 2 or 3. norm: see above.
    """

    def __init__(self, filters: int, width: int, ndim: int, norm: SpectralNorm, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.width, self.ndim, self.norm = filters, width, ndim, norm

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*(self.width,) * self.ndim, input_shape[-1], self.filters),
            initializer="glorot_uniform",
        )

    def normalised_kernel(self) -> Tensor:
        """The kernel that the layer convolves with."""
        bound = operator_norm_bound if self.norm == "operator" else kernel_norm_bound
        kernel = ops.cast(self.kernel, "float32")
        return kernel / (bound(kernel) + 1e-12)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.conv(inputs, ops.cast(self.normalised_kernel(), inputs.dtype), padding="same")

    def get_config(self) -> dict[str, Any]:
        own = {"filters": self.filters, "width": self.width, "ndim": self.ndim, "norm": self.norm}
        return {**super().get_config(), **own}
