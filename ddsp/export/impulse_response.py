"""The learned room as a WAV file, for any convolution reverb."""

from __future__ import annotations

import os
import pathlib

import soxr

from ddsp.errors import DDSPError
from ddsp.inference import Bundle
from ddsp.io.audio import write_wav
from ddsp.io.files import check_output


def export_impulse_response(
    bundle: Bundle, path: str | os.PathLike[str], *, sample_rate: int | None = None, dry: bool = False
) -> pathlib.Path:
    """Writes the impulse response that a model has learned, as 32-bit float WAV.

    Args:
      bundle: A model with a learned reverb.
      path: File to write; a directory gets `impulse_response_<rate>_hz.wav`.
      sample_rate: Hz; the model's by default.
      dry: With the direct sound, a 1 at the beginning. Convolution reverbs usually mix it in themselves.

    Returns:
      The file.

    Raises:
      DDSPError: The model has no reverb, or the file cannot be written or lies in the bundle.
    """
    response = bundle.impulse_response()
    if response is None:
        raise DDSPError(f'the model {bundle.path} has no reverb: there is no impulse response to export')
    rate = sample_rate or bundle.sample_rate
    if rate != bundle.sample_rate:
        # Fewer or more taps stand for the same area under the response.
        response = soxr.resample(response, bundle.sample_rate, rate) * (bundle.sample_rate / rate)
    if dry:
        response[0] = 1.0
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / f'impulse_response_{rate}_hz.wav'
    check_output(path, bundle.path)
    write_wav(path, response, rate, subtype='FLOAT')
    return path
