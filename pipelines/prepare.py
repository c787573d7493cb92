"""Preparation as a whole: recordings in, a published dataset directory out.

Example:
  prepare_dataset('recordings', 'data', 'violin', options=PrepareOptions(frame_rate=250))
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import F0Estimator, get_estimator
from ddsp.io import gcs, storage
from ddsp.io.dataset import NAME, VERSION
from ddsp.io.progress import Progress
from pipelines.beam import engines
from pipelines.beam.ending import AGAIN, FAILED
from pipelines.beam.graph import build
from pipelines.beam.request import Request
from pipelines.beam.runner import run_here
from pipelines.options import PrepareOptions
from pipelines.publish.home import CloudHome, LocalHome, open_home
from pipelines.publish.provenance import Provenance
from pipelines.result import PrepareResult, describe
from pipelines.shards.plan import Failure
from pipelines.sources.effort import seconds_to_analyse
from pipelines.sources.finding import PathLike, check_sources

_COST_BESIDE_F0 = 0.01  # CPU seconds for a second of audio


def prepare_dataset(
    sources: PathLike | Iterable[PathLike],
    root: PathLike,
    name: str,
    version: str | None = None,
    *,
    options: PrepareOptions | None = None,
    progress: Progress | None = None,
    runner: str = 'local',
    beam_options: Sequence[str] = (),
) -> PrepareResult:
    """Prepares a dataset from recordings and publishes it as `<root>/<name>/<version>/`.

    What an interrupted call left is used by the next one with the same inputs and options; a dataset that is
    there already is returned at once.

    Args:
      sources: Files, folders and patterns, here or on gs://.
      root: Folder of all datasets, here or on gs://.
      name: Name of the dataset: letters, digits and underscores.
      version: Such as `'1.0.0'`; None for the newest one where nothing has changed, otherwise the next.
      options: How; defaults are those of `PrepareOptions`.
      progress: Called from time to time with (seconds of audio done, in all, text).
      runner: The Beam engine: 'local', 'portable', 'flink', 'spark' or 'dataflow' (see docs/scale.md).
      beam_options: Options for the engine, such as `'--region=europe-west4'`.

    Returns:
      What was done.

    Raises:
      ConfigError: A name or an option is not allowed.
      DDSPError: There is no usable input, too many inputs are unusable, or the output cannot be written.
    """
    started = time.monotonic()
    tell = progress or (lambda *_: None)
    sources = check_sources(sources)
    if runner != 'local' or beam_options:
        engines.check(runner, beam_options, root=os.fspath(root), sources=sources)
    request = make_request(sources, root, name, version, options, runner)
    home = open_home(root, name)
    with home.locked():
        tell(0, 1, 'looking into the inputs')
        made: Counter[str] = Counter()
        while (outcome := _run(request, runner, beam_options, tell))['state'] == AGAIN:
            made.update(outcome['made'])
        if outcome['state'] == FAILED:
            raise Failure(outcome['kind'], outcome['message']).error()
        storage.remove_folder(request.staging)
        if request.watch:
            shutil.rmtree(os.path.dirname(request.watch), ignore_errors=True)
    tell(1, 1, 'published')
    found = describe(home.open(outcome['version']))
    done = _done(outcome, made)
    return dataclasses.replace(found, wall_seconds=time.monotonic() - started, **done)


def make_request(
    sources: PathLike | Iterable[PathLike],
    root: PathLike,
    name: str,
    version: str | None = None,
    options: PrepareOptions | None = None,
    runner: str = 'local',
) -> Request:
    """What a preparation is asked to do; raises ConfigError and DDSPError as `prepare_dataset`."""
    options = options or PrepareOptions()
    _check_name(root, name, version)
    estimator = get_estimator(options.f0)
    items = check_sources(sources)
    root = os.fspath(root)
    provenance = Provenance.of_this_process(estimator)
    if runner != 'local':
        root = root if gcs.is_gcs(root) else os.path.abspath(root)
        return Request(items, root, name, version, options, provenance)
    home = open_home(root, name)
    scratch = str(home.work / 'scratch') if isinstance(home, CloudHome) else f'{home.work}/.staging'
    # A folder for each call: workers of one that failed may live as long as this process.
    watch = f'{scratch}/run-{uuid.uuid4().hex[:8]}'
    request = Request(items, root, name, version, options, provenance, watch=watch, cache=f'{scratch}/inputs')
    return dataclasses.replace(request, lanes=_count_workers(request, home, estimator))


def _count_workers(request: Request, home: LocalHome | CloudHome, estimator: F0Estimator) -> int:
    if request.options.workers is not None:
        return request.options.workers  # nothing to find out
    cost = getattr(estimator, 'cost', 0.01) + _COST_BESIDE_F0
    survey = home.survey if _is_incremental(home, request.options) else ''
    return request.options.count_workers(seconds_to_analyse(request.sources, survey) * cost)


def _is_incremental(home: LocalHome | CloudHome, options: PrepareOptions) -> bool:
    """Whether the newest version was made with the same options, so that most of its shards serve again."""
    versions = home.versions()
    if not versions:
        return False
    parameters = home.open(versions[-1]).json('pipeline.json').get('parameters', {})
    return {**parameters, 'splits': ''} == {**options.record(), 'splits': ''}


def _run(
    request: Request,
    runner: str,
    beam_options: Sequence[str],
    tell: Progress,
) -> dict[str, Any]:
    """One round of the graph; returns its outcome."""

    def follow(counts: Mapping[str, float]) -> None:
        total = counts.get('planned/audio_ms', 0) / 1000
        done = min(total, (counts.get('made/audio_ms', 0) + counts.get('reused/audio_ms', 0)) / 1000)
        if total:
            tell(done, total, f'{done:.0f} of {total:.0f} s of audio analysed')
        elif counts.get('probed/inputs'):
            tell(0, 1, f'looking into the inputs: {counts["probed/inputs"]:.0f}')

    for _ in range(2):  # another driver of the same request may take the outcome away: once more finds all
        if runner == 'local':
            run_here(request, follow)
        else:
            engines.run(
                runner,
                beam_options,
                lambda pipeline: build(pipeline, request),
                label=request.label,
                follow=follow,
            )
        if outcome := request.read_outcome():
            return outcome
    raise DDSPError(f'the job ended without a result in {request.outcome}. Run the same command again.')


def _done(outcome: Mapping[str, Any], earlier: Mapping[str, float]) -> dict[str, Any]:
    """What this call made, as attributes of PrepareResult."""
    if 'shards' not in outcome:
        return {}
    made = outcome['shards_made'] + int(earlier.get('made/shards', 0))
    return {
        'metrics': outcome['metrics'],
        'costs': outcome['costs'],
        'shards_made': made,
        'shards_reused': outcome['shards'] - outcome['shards_made'],
        'audio_made': outcome['audio_made'] + earlier.get('made/audio_ms', 0) / 1000,
    }


def _check_name(root: PathLike, name: str, version: str | None) -> None:
    if not os.fspath(root):
        raise ConfigError('root is empty; name the folder of all datasets, such as data.')
    if not NAME.fullmatch(name):
        near = re.sub(r'\W+', '_', name).strip('_') or 'dataset'
        near = near if near[0].isalpha() else f'd{near}'
        raise ConfigError(
            f'name is {name!r}; it must be letters, digits and underscores and begin with a letter, '
            f'such as {near!r}.'
        )
    if version is not None and not VERSION.fullmatch(version):
        raise ConfigError(f"version is {version!r}; it must be three numbers such as '1.0.0'.")
