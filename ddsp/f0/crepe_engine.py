"""The network of CREPE by fast convolution, in numpy and scipy.

Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018. Six
convolutions of width 64 (the first 512 with stride 4), each with ReLU, batch normalisation and pooling by
two, then 360 sigmoids. As products of spectra they take a small part of the multiplications, for the same
activations.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from ddsp.f0.crepe_weights import Layer, Weights

FRAME = 1024
_STRIDE = 4
_BATCH = 32  # frames at once: the first layer of the full network fills 33 MB


class CrepeEngine:
    """A network ready to run.

    Args:
      weights: What `load_weights` read.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        kernels = [_split_phases(weights.layers[0].kernel)]
        kernels += [(layer.kernel, -31) for layer in weights.layers[1:]]
        self._spectra = []
        length = FRAME // _STRIDE
        for kernel, first in kernels:
            self._spectra.append(_kernel_spectrum(kernel, first, length))
            length //= 2

    def activations(self, frames: np.ndarray) -> np.ndarray:
        """Activations of the 360 pitch bins.

        Args:
          frames: Windows of audio [n_frames, 1024] at 16 kHz.

        Returns:
          [n_frames, 360], 0 to 1, float32.
        """
        parts = [self._run(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 360), np.float32)

    def _run(self, frames: np.ndarray) -> np.ndarray:
        frames = np.asarray(frames, np.float32)
        centred = frames - frames.mean(axis=1, keepdims=True)
        centred /= np.maximum(centred.std(axis=1, keepdims=True), 1e-8)
        # [time, frame, channel]: the transforms run along the first axis, the products along the last.
        values = centred.reshape(len(frames), FRAME // _STRIDE, _STRIDE).transpose(1, 0, 2)
        for layer, spectrum in zip(self._weights.layers, self._spectra, strict=True):
            values = _convolve(values, layer, spectrum)
        flat = values.transpose(1, 0, 2).reshape(len(frames), -1)
        logits = flat @ self._weights.classifier + self._weights.classifier_bias
        return 1 / (1 + np.exp(-logits))


def _split_phases(kernel: np.ndarray) -> tuple[np.ndarray, int]:
    """The first kernel [512, 1, out] with stride 4 as one with 4 input channels and stride 1."""
    width, _, channels = kernel.shape
    padding = (width - _STRIDE) // 2  # 254 zeros in front, as 'same' has it
    first = -(-padding // _STRIDE)
    padded = np.concatenate((np.zeros((first * _STRIDE - padding, channels), np.float32), kernel[:, 0]))
    padded = np.concatenate((padded, np.zeros((-len(padded) % _STRIDE, channels), np.float32)))
    return padded.reshape(-1, _STRIDE, channels), -first


def _kernel_spectrum(kernel: np.ndarray, first: int, length: int) -> tuple[np.ndarray, int]:
    """Spectrum [bins, in, out] and transform length of a kernel: tap j multiplies input `t + first + j`.

    Taps that reach beyond all inputs are left out, and the transform is only so long that what wraps around
    does not reach the `length` outputs.
    """
    taps = np.arange(len(kernel)) + first
    used = np.abs(taps) < length
    taps, kernel = taps[used], kernel[used]
    size = scipy.fft.next_fast_len(length + int(np.abs(taps).max()), real=True)
    wrapped = np.zeros((size, *kernel.shape[1:]), np.float32)
    wrapped[-taps % size] = kernel
    return np.ascontiguousarray(scipy.fft.rfft(wrapped, axis=0)), size


def _convolve(values: np.ndarray, layer: Layer, spectrum: tuple[np.ndarray, int]) -> np.ndarray:
    """Convolution, ReLU, normalisation and pooling of [time, frame, channel]."""
    kernel, size = spectrum
    product = np.matmul(scipy.fft.rfft(values, size, axis=0), kernel)
    out = scipy.fft.irfft(product, size, axis=0, overwrite_x=True)[: len(values)]
    out += layer.bias
    np.maximum(out, 0, out=out)
    out *= layer.scale
    out += layer.shift
    return np.maximum(out[0::2], out[1::2])
