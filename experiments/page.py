"""Self-contained HTML pages to listen to: players, pictures and numbers in one file that opens anywhere.

Audio and pictures are embedded, so that a page works as an e-mail attachment and inside MLflow's artefact
pane.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --best: #2a9d5c; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-top: 1px solid var(--line);
padding-top: 1rem; } img { max-width: 100%; border-radius: 6px; display: block; margin: .5rem 0; background:
#fff; } table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem; text-align: left;
border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.best { color: var(--best); font-weight: 700; } .players { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .75; } audio { width: 22rem; max-width: 90vw; }
code { background: var(--soft); padding: .1rem .35rem; border-radius: 4px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
"""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One player: what it plays and what stands above it."""

    label: str
    audio: np.ndarray
    sample_rate: int


@dataclasses.dataclass(frozen=True)
class Example:
    """One section of a page: players beside each other, numbers and pictures below."""

    title: str
    clips: Sequence[Clip] = ()
    pictures: Sequence[str | os.PathLike[str]] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


def listen_page(
    title: str,
    examples: Sequence[Example],
    *,
    metrics: Mapping[str, float] | None = None,
    facts: Mapping[str, str] | None = None,
    pictures: Sequence[str | os.PathLike[str]] = (),
) -> str:
    """A page of examples to listen to.

    Args:
      title: Heading.
      examples: Sections.
      metrics: Totals, shown as a table under the heading.
      facts: What is listened to (run, dataset, model): shown as a list.
      pictures: Pictures that belong to no example, such as the loss curve.

    Returns:
      HTML.
    """
    parts = [f'<h1>{html.escape(title)}</h1>']
    if facts:
        rows = ''.join(
            f'<li>{html.escape(name)}: <code>{html.escape(str(value))}</code></li>'
            for name, value in facts.items()
        )
        parts.append(f'<ul>{rows}</ul>')
    if metrics:
        parts.append(metrics_table(metrics))
    parts += [picture(path) for path in pictures]
    parts += [_section(example) for example in examples]
    return document(title, '\n'.join(parts))


def document(title: str, body: str, style: str = '', script: str = '') -> str:
    """A whole HTML document around a body.

    Args:
      title: Of the window.
      body: HTML.
      style: CSS after that of all pages.
      script: JavaScript that runs at the end.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{_STYLE}{style}</style></head>\n'
        f'<body>{body}{f"<script>{script}</script>" if script else ""}</body></html>\n'
    )


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Names and numbers as an HTML table."""
    rows = ''.join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{format_number(value)}</td></tr>'
        for name, value in metrics.items()
    )
    return f'<table>{rows}</table>'


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where it stays readable."""
    if value != value:
        return 'nan'
    return f'{value:.4g}' if 1e-4 <= abs(value) < 1e6 or value == 0 else f'{value:.3e}'


def audio_player(clip: Clip) -> str:
    """An `<audio>` element with its sound inside."""
    source = base64.b64encode(wav_bytes(clip.audio, clip.sample_rate)).decode()
    return (
        f'<figure><figcaption>{html.escape(clip.label)}</figcaption>'
        f'<audio controls preload="metadata" src="data:audio/wav;base64,{source}"></audio></figure>'
    )


def wav_bytes(audio: np.ndarray, sample_rate: int) -> bytes:
    """16-bit WAV of a mono signal in [-1, 1]; what is beyond is clipped."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(np.asarray(audio, np.float32).ravel(), -1, 1), sample_rate, 'PCM_16', format='WAV'
    )
    return buffer.getvalue()


def _section(example: Example) -> str:
    """One example as HTML."""
    players = ''.join(audio_player(clip) for clip in example.clips)
    parts = [f'<h2>{html.escape(example.title)}</h2>', f'<div class="players">{players}</div>']
    if example.metrics:
        parts.append(metrics_table(example.metrics))
    parts += [picture(path) for path in example.pictures]
    return '\n'.join(parts)


def picture(path: str | os.PathLike[str]) -> str:
    """A PNG inside the page."""
    path = pathlib.Path(path)
    return embedded_picture(path.read_bytes(), path.stem)


def embedded_picture(png: bytes, alternative: str) -> str:
    """The bytes of a PNG inside the page, with words for those who do not see it."""
    source = base64.b64encode(png).decode()
    return f'<img alt="{html.escape(alternative)}" src="data:image/png;base64,{source}">'
