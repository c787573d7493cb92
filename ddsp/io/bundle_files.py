"""Files of a bundle: their names, metadata and digests, and what is refused in them."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io import files

SCHEMA_VERSION = 1
CONFIG = 'config.gin'
WEIGHTS = 'weights.weights.h5'
STATISTICS = 'statistics.json'
METADATA = 'metadata.json'
FILES = (METADATA, CONFIG, WEIGHTS, STATISTICS)
_REQUIRED: dict[str, type] = {
    'sample_rate': int, 'frame_rate': int, 'hop_size': int, 'example_secs': float, 'f0_estimator': str,
    'centered': bool,
}  # fmt: skip
_MAX_SAMPLES = 2**25  # of an example: 11 minutes at 48 kHz


class BundleError(DDSPError):
    """A model bundle that is missing, incomplete or damaged."""


def check_files(path: pathlib.Path) -> None:
    """Refuses a folder that is not a whole bundle, or whose files lie elsewhere."""
    if not path.is_dir():
        raise BundleError(f'no model bundle at {path}: there is no such directory')
    missing = [name for name in FILES if not files.inside(path, name, f'the bundle {path}').is_file()]
    if missing:
        raise BundleError(f'{path} is not a complete model bundle: {", ".join(missing)} is missing')


def check_weights(path: pathlib.Path) -> None:
    """Refuses an HDF5 file that takes its content from elsewhere (Keras before 3.13 follows such links)."""
    import h5py

    with h5py.File(path, 'r') as file:

        def outside(name: str, link: Any) -> str | None:
            if not isinstance(link, h5py.HardLink):
                return f'{name!r} is a link to another place'
            item = file[name]
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                return f'{name!r} lies in another file'
            return None

        found = file.visititems_links(outside)
    if found:
        raise BundleError(f'{path} is not a file of weights: {found}')


def _own_digest(metadata: Mapping[str, Any]) -> str:
    """Digest of the metadata themselves, but for the digest."""
    content = {key: value for key, value in metadata.items() if key != 'digest'}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_metadata(path: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Writes the metadata of a bundle, with their own digest."""
    files.write_json(path / METADATA, {**metadata, 'digest': _own_digest(metadata)})


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """The metadata of a bundle, checked."""
    place = path / METADATA
    metadata = read_json(place)
    if metadata.get('schema_version') != SCHEMA_VERSION:
        raise BundleError(
            f'{place} has schema_version {metadata.get("schema_version")!r}; this version of ddsp reads '
            f'{SCHEMA_VERSION}'
        )
    if metadata.keys() & {'sha256', 'digest'} and (  # earlier versions wrote none
        metadata.get('digest') != _own_digest(metadata)
        or not isinstance(metadata.get('sha256'), dict)
        or set(metadata['sha256']) != {CONFIG, WEIGHTS, STATISTICS}
    ):
        raise BundleError(f'{place} is damaged: it is not the file that was saved')
    absent = [key for key in _REQUIRED if key not in metadata]
    if absent:
        raise BundleError(f'{place} is damaged: {", ".join(absent)} is missing')
    for key, kind in _REQUIRED.items():
        value = metadata[key]
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or (kind in (int, float) and not value > 0):
            raise BundleError(f'{place} is damaged: {key} is {value!r}')
    n_samples = metadata['sample_rate'] * metadata['example_secs']
    if not n_samples <= _MAX_SAMPLES or not metadata['frame_rate'] <= metadata['sample_rate']:
        raise BundleError(
            f'{place} is damaged: example_secs is {metadata["example_secs"]} at {metadata["sample_rate"]} Hz '
            f'and {metadata["frame_rate"]} frames per second'
        )
    return metadata


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """An object of a JSON file."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise BundleError(f'{path} is damaged: {error}') from error
    if not isinstance(content, dict):
        raise BundleError(f'{path} is damaged: it does not hold an object')
    return content
