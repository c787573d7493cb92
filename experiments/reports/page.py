"""Self-contained HTML pages to listen to: players, pictures and numbers in one file that opens anywhere.

Audio and pictures are embedded, so that a page works as an e-mail attachment and inside MLflow's artefact
pane. What pages look like is in `templates/`; Jinja escapes whatever they are filled with.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddsp.errors import require

MOST_PLAYED_SECS = 60.0  # of a clip: a page must stay small enough to be opened


@dataclasses.dataclass(frozen=True)
class Clip:
    """One player: what it plays and what stands above it."""

    label: str
    audio: np.ndarray
    sample_rate: int

    @classmethod
    def of(cls, label: str, path: str | os.PathLike[str]) -> Clip:
        """A clip of the first minute of a WAV file."""
        import soundfile

        with soundfile.SoundFile(os.fsencode(path)) as file:
            audio = file.read(int(MOST_PLAYED_SECS * file.samplerate), dtype='float32')
            return cls(label, audio, file.samplerate)

    @property
    def source(self) -> str:
        """The sound as a data URL."""
        return _data_url('audio/wav', wav_bytes(self.audio, self.sample_rate))


@dataclasses.dataclass(frozen=True)
class Example:
    """One section of a page: players beside each other; numbers and pictures further down."""

    title: str
    clips: Sequence[Clip] = ()
    pictures: Sequence[str | os.PathLike[str]] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def render(template: str, **values: Any) -> str:
    """A template of this package, filled in; everything but `Markup` is escaped."""
    return _templates().get_template(template).render(values)


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where it stays readable."""
    if value != value:
        return 'nan'
    return f'{value:.4g}' if 1e-4 <= abs(value) < 1e6 or value == 0 else f'{value:.3e}'


def wav_bytes(audio: np.ndarray, sample_rate: int) -> bytes:
    """16-bit WAV of a mono signal in [-1, 1]; what is beyond is clipped."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(np.asarray(audio, np.float32).ravel(), -1, 1), sample_rate, 'PCM_16', format='WAV'
    )
    return buffer.getvalue()


@functools.cache
def _templates() -> Any:
    require('jinja2', 'to write pages')
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('experiments.reports'), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters['number'] = format_number
    environment.filters['stem'] = lambda path: pathlib.Path(path).stem
    environment.filters['picture_source'] = lambda path: png_source(pathlib.Path(path).read_bytes())
    return environment


def png_source(png: bytes) -> str:
    """The bytes of a PNG as a data URL."""
    return _data_url('image/png', png)


def _data_url(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'
