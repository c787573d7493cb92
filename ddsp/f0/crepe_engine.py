"""The network of CREPE by fast convolution, in numpy and scipy.

Kim, Salamon, Li, Bello, "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018. Six
convolutions of width 64 (the first 512 with stride 4), each with ReLU, batch normalisation and pooling by
two, then 360 sigmoids. Convolutions become products of spectra, which takes a small part of the
multiplications; the normalisation is folded into the layer behind it, so that nothing is left to do between
layers but ReLU and pooling. The activations are the same.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft
import threadpoolctl

from ddsp.f0.crepe_weights import Weights

FRAME = 1024
_STRIDE = 4
_BATCH = 32  # frames at once: the arrays stay below 32 MB, where the allocator keeps its pages
_FIRST_BATCH = 4  # frames at once in the first layer, whose arrays should stay in the cache
_TILE = 32  # outputs of the first layer that are computed from one pair of spectra
_N_POSITIONS = FRAME // _STRIDE


@dataclasses.dataclass(frozen=True)
class _Folded:
    """A convolution that also does the normalisation of the layer before it.

    Attributes:
      kernel: [width, channels_in, channels_out].
      bias: [time or 1, 1, channels_out]; depends on time because the padding is not normalised.
      n_max: Number of channels pooled by their maximum; the rest (negative scale) by their minimum.
    """

    kernel: np.ndarray
    bias: np.ndarray
    n_max: int


class CrepeEngine:
    """A network ready to run.

    Args:
      weights: What `load_weights` read.
    """

    def __init__(self, weights: Weights) -> None:
        layers, self._classifier, self._classifier_bias = _fold(weights)
        self._first = _TiledConvolution(layers[0])
        self._others = [_Convolution(layer, len(layer.bias)) for layer in layers[1:]]
        # Whoever has several recordings runs several workers; more threads here mostly wait for each other.
        self._blas = threadpoolctl.ThreadpoolController().select(user_api='blas')

    def activations(self, frames: np.ndarray) -> np.ndarray:
        """Activations of the 360 pitch bins.

        Args:
          frames: Windows of audio [n_frames, 1024] at 16 kHz.

        Returns:
          [n_frames, 360], 0 to 1, float32.
        """
        with self._blas.limit(limits=1):
            parts = [self._run(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, 360), np.float32)

    def _run(self, frames: np.ndarray) -> np.ndarray:
        frames = np.asarray(frames, np.float32)
        centred = frames - frames.mean(axis=1, keepdims=True)
        centred /= np.maximum(centred.std(axis=1, keepdims=True), 1e-8)
        # [time, frame, channel]: the transforms run along the first axis, the products along the last.
        values = self._first(centred)
        for convolution in self._others:
            values = convolution(values)
        flat = values.transpose(1, 0, 2).reshape(len(frames), -1)
        return 1 / (1 + np.exp(-(flat @ self._classifier + self._classifier_bias)))


def _fold(weights: Weights) -> tuple[list[_Folded], np.ndarray, np.ndarray]:
    """The convolutions with the normalisations moved behind the pooling and into the next layer.

    Pooling takes the larger of two values `scale * x + shift`: that of the larger x where the scale is
    positive, of the smaller x elsewhere. So it can come first, with the channels sorted by the sign of their
    scale.
    """
    folded: list[_Folded] = []
    order: np.ndarray | slice = slice(None)
    scale, shift = np.ones(1, np.float32), np.zeros(1, np.float32)
    length = _N_POSITIONS
    for layer in weights.layers:
        kernel, bias = layer.kernel[:, order] * scale[:, None], layer.bias[None]
        if folded:
            bias = bias + _constant_response(layer.kernel[:, order], shift, length)
        negative = layer.scale < 0
        order = np.argsort(negative, kind='stable')
        scale, shift = layer.scale[order], layer.shift[order]
        folded.append(_Folded(kernel[:, :, order], bias[:, None, order], int(np.sum(~negative))))
        length //= 2
    classifier = weights.classifier.reshape(length, len(scale), -1)[:, order]
    bias = weights.classifier_bias + np.einsum('c,tco->o', shift, classifier)
    return folded, (classifier * scale[:, None]).reshape(-1, classifier.shape[2]), bias


def _constant_response(kernel: np.ndarray, shift: np.ndarray, length: int) -> np.ndarray:
    """What a constant input gives [length, channels_out], with zeros beyond the ends."""
    taps = np.einsum('c,jco->jo', shift, kernel)
    before = (len(kernel) - 1) // 2
    total = np.concatenate((np.zeros((1, taps.shape[1]), taps.dtype), np.cumsum(taps, axis=0)))
    times = np.arange(length)
    first, last = np.maximum(before - times, 0), np.minimum(length + before - times, len(kernel))
    return total[last] - total[first]


class _TiledConvolution:
    """The first layer: one channel, stride 4, 512 taps.

    The four samples of a stride become channels. Outputs are made 32 at a time from the spectra of 64 inputs,
    and the 128 taps in four blocks (overlap-save with a partitioned kernel). With so short transforms the
    inverse one is a product of matrices as well, which processors do twenty times faster than an FFT's steps.
    """

    def __init__(self, layer: _Folded) -> None:
        width, _, self._channels = layer.kernel.shape
        self._blocks = width // _STRIDE // _TILE
        self._n_max = layer.n_max
        phases = layer.kernel.reshape(self._blocks, _TILE, _STRIDE, self._channels)
        spectrum = np.conj(scipy.fft.rfft(phases, 2 * _TILE, axis=1)).transpose(1, 2, 0, 3)
        spectrum = spectrum.reshape(_TILE + 1, -1, self._channels)
        # Real and imaginary part of a complex product as two real ones: [bin, part, inputs, channel].
        real = np.concatenate((spectrum.real, -spectrum.imag), axis=1)
        imaginary = np.concatenate((spectrum.imag, spectrum.real), axis=1)
        self._kernel = np.ascontiguousarray(np.stack((real, imaginary), axis=1))
        self._inverse = _inverse_transform()
        self._bias = 2 * _TILE * layer.bias[0, 0]

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Normalised windows [n_frames, 1024] to pooled outputs [128, n_frames, channels]."""
        out = np.empty((_N_POSITIONS // 2, len(frames), self._channels), np.float32)
        for i in range(0, len(frames), _FIRST_BATCH):
            batch = slice(i, i + _FIRST_BATCH)
            self._convolve(self._spectra(frames[batch]), out[:, batch])
        return out

    def _spectra(self, frames: np.ndarray) -> np.ndarray:
        """Spectra of the inputs of each tile [bin, 1, tile * frame, real and imaginary inputs]."""
        before = (_STRIDE * _TILE * self._blocks - _STRIDE) // 2  # zeros in front, as 'same' has it
        n_tiles = _N_POSITIONS // _TILE
        padded = np.zeros((len(frames), _STRIDE * _TILE * (n_tiles + self._blocks)), np.float32)
        padded[:, before : before + FRAME] = frames
        halves = padded.reshape(len(frames), -1, _TILE, _STRIDE)
        pairs = np.concatenate((halves[:, :-1], halves[:, 1:]), axis=2)
        spectra = scipy.fft.rfft(pairs, axis=2)  # [frame, pair, bin, phase]
        tiles = np.lib.stride_tricks.sliding_window_view(spectra, self._blocks, axis=1)
        tiles = tiles.transpose(2, 1, 0, 3, 4).reshape(_TILE + 1, 1, n_tiles * len(frames), -1)
        return np.concatenate((tiles.real, tiles.imag), axis=3)

    def _convolve(self, spectra: np.ndarray, out: np.ndarray) -> None:
        product = np.matmul(spectra, self._kernel)  # [bin, part, tile * frame, channel]
        product[0, 0] += self._bias
        values = self._inverse @ product.reshape(2 * (_TILE + 1), -1)
        even, odd = values.reshape(2, _TILE // 2, -1, out.shape[1], self._channels).transpose(0, 2, 1, 3, 4)
        _pool(even, odd, self._n_max, out.reshape(even.shape))


def _inverse_transform() -> np.ndarray:
    """Matrix from a spectrum of 64 (real and imaginary parts) to 32 outputs, the even ones first."""
    times, bins = np.arange(_TILE), np.arange(_TILE + 1)
    weight = np.where(bins % _TILE == 0, 1, 2) / (2 * _TILE)
    angle = np.pi * np.outer(times, bins) / _TILE
    matrix = np.stack((weight * np.cos(angle), -weight * np.sin(angle)), axis=2).reshape(_TILE, -1)
    return np.concatenate((matrix[0::2], matrix[1::2])).astype(np.float32)


class _Convolution:
    """A layer with many input channels, by one spectrum of its whole length.

    Taps that reach beyond all inputs are left out, and the transform is only so long that what wraps around
    does not reach the outputs.
    """

    def __init__(self, layer: _Folded, length: int) -> None:
        taps = np.arange(len(layer.kernel)) - (len(layer.kernel) - 1) // 2  # tap j multiplies input t + j
        used = np.abs(taps) < length
        taps, kernel = taps[used], layer.kernel[used]
        self._size = scipy.fft.next_fast_len(length + int(np.abs(taps).max()), real=True)
        wrapped = np.zeros((self._size, *kernel.shape[1:]), np.float32)
        wrapped[-taps % self._size] = kernel
        self._kernel = np.ascontiguousarray(scipy.fft.rfft(wrapped, axis=0))
        self._bias, self._n_max = layer.bias, layer.n_max

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values [time, frame, channel] to pooled outputs [time / 2, frame, channel]."""
        product = np.matmul(scipy.fft.rfft(values, self._size, axis=0), self._kernel)
        out = scipy.fft.irfft(product, self._size, axis=0, overwrite_x=True)[: len(values)]
        out += self._bias
        pooled = np.empty((len(out) // 2, *out.shape[1:]), np.float32)
        _pool(out[0::2], out[1::2], self._n_max, pooled)
        return pooled


def _pool(first: np.ndarray, second: np.ndarray, n_max: int, out: np.ndarray) -> None:
    """The larger of two values, the smaller one behind the first `n_max` channels, and ReLU."""
    np.maximum(first[..., :n_max], second[..., :n_max], out=out[..., :n_max])
    np.minimum(first[..., n_max:], second[..., n_max:], out=out[..., n_max:])
    np.maximum(out, 0, out=out)
