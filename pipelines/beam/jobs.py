"""What all engines have in common: names of jobs, their steps, and the line of an error that matters."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from ddsp.errors import ConfigError
from pipelines.beam.sdk import PipelineOptions, beam

AGAIN = 'Run the same command again: shards that are finished are not made again.'


def assemble(options: PipelineOptions, construct: Callable[[beam.Pipeline], None]) -> beam.Pipeline:
    """A pipeline with its graph, not started."""
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:  # Beam's own validation of options
        reasons = '; '.join(line.strip() for line in str(error).splitlines()[1:] if line.strip())
        raise ConfigError(f'Beam does not accept the options: {reasons or error}') from None
    construct(pipeline)
    return pipeline


def job_name(label: str) -> str:
    """A label as engines accept it: at most 63 small letters, digits and dashes.

    >>> job_name('My_violin-1.0.0-3f2a1c')
    'my-violin-1-0-0-3f2a1c'
    """
    name = re.sub('[^a-z0-9]+', '-', label.lower()).strip('-')
    head, _, digest = name.rpartition('-')
    return name if len(name) <= 63 else f'{head[: 62 - len(digest)].rstrip("-")}-{digest}'


def steps_of(proto: Any) -> list[str]:
    """Names of the steps of a graph, in order, from its portable form."""
    transforms = proto.components.transforms
    (root,) = proto.root_transform_ids
    top = [transforms[name].unique_name for name in transforms[root].subtransforms]
    return top or [transforms[root].unique_name]


def cause(text: str) -> str:
    """The line of an error's text that says what happened: an exception rather than a place in a file."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Rejected)\b', line)]
    ours = [line for line in named if not line.startswith(('java.', 'org.'))]
    # Where nothing is named, it is a stack of Go or Java, which begins with what happened.
    return ((ours or named or lines[:1] or ['no reason was given'])[-1])[:500].rstrip('.')


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Beam's log off the terminal; errors are raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
