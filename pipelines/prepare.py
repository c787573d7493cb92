"""Preparation as a whole: recordings in, a published dataset directory out.

Example:
  prepare_dataset('recordings', 'data', 'violin', options=PrepareOptions(frame_rate=250))
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ddsp.dataset import open_dataset, published_versions
from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import F0Estimator, get_estimator
from pipelines.options import PrepareOptions
from pipelines.publish import publish
from pipelines.result import PrepareResult, describe_made, describe_published
from pipelines.runner import run_shards
from pipelines.shards import FEATURES_VERSION, ShardPlan, finished_shard
from pipelines.sources import Piece, Source, find_sources, split_sources, survey

Progress = Callable[[float, float, str], None]
PathLike = str | os.PathLike[str]

_SECONDS_PER_SHARD = 60.0
_MAX_SHARDS = 1000
_COST_BESIDE_F0 = 0.01  # CPU seconds for a second of audio
_SHOWN = 5


def prepare_dataset(
    sources: PathLike | Iterable[PathLike],
    root: PathLike,
    name: str,
    version: str | None = None,
    *,
    options: PrepareOptions | None = None,
    progress: Progress | None = None,
) -> PrepareResult:
    """Prepares a dataset from recordings and publishes it as `<root>/<name>/<version>/`.

    What an interrupted call left is used by the next one with the same inputs and options; a dataset that is
    there already is returned at once.

    Args:
      sources: Files, folders and patterns.
      root: Folder of all datasets.
      name: Of the dataset: letters, digits and underscores.
      version: Such as `'1.0.0'`; None for the newest one where nothing has changed, otherwise the next.
      options: How; defaults are those of `PrepareOptions`.
      progress: Called from time to time with (seconds of audio done, in all, text).

    Returns:
      What was done.

    Raises:
      ConfigError: A name or an option cannot be.
      DDSPError: There is no usable input, too many inputs are unusable, or the output cannot be written.
    """
    started = time.monotonic()
    options = options or PrepareOptions()
    _check_name(name, version)
    estimator = get_estimator(options.f0)
    found = find_sources(sources)
    with _output_folder(pathlib.Path(root) / name) as home:
        _tell(progress, 0, 1, 'looking into the inputs')
        survey(
            found, lambda done, total: _tell(progress, 0, 1, f'looking into the inputs: {done} of {total}')
        )
        _check_usable(found, options)
        fingerprint = _fingerprint(found, options, estimator)
        target = _target(home, version, fingerprint)
        if (target / 'MANIFEST.json').exists():
            return describe_published(open_dataset(target), time.monotonic() - started)
        staging = home / f'.{target.name}.staging'
        job = _Job(staging, options, estimator, progress)
        shards = job.run(found)
        statistics = publish(target, staging, shards, found, options, fingerprint)
    return describe_made(target, found, shards, statistics, job.made, job.reused, time.monotonic() - started)


class _Job:
    """The making of the shards of one preparation."""

    def __init__(
        self,
        staging: pathlib.Path,
        options: PrepareOptions,
        estimator: F0Estimator,
        progress: Progress | None,
    ) -> None:
        self._staging, self._options, self._progress = staging, options, progress
        self.estimator = estimator
        self.made = self.reused = 0

    def run(self, sources: list[Source]) -> list[tuple[ShardPlan, dict[str, Any]]]:
        """Makes all shards; plans again where a split was left empty by recordings that proved unusable."""
        self._staging.mkdir(exist_ok=True)
        while True:
            usable = [source for source in sources if not source.outcome]
            pieces = split_sources(usable, self._options.splits, self._options.example_secs)
            plans = plan_shards(pieces, self._options, self.estimator)
            shards = self._make(plans)
            newly_rejected = _take_outcomes(usable, shards)
            _check_usable(sources, self._options)
            filled = {plan.split for plan, row in shards if row['examples']}
            if not newly_rejected or filled == set(self._options.splits):
                break
        for source in sources:
            source.outcome = source.outcome or 'accepted'
        return shards

    def _make(self, plans: list[ShardPlan]) -> list[tuple[ShardPlan, dict[str, Any]]]:
        missing = [plan for plan in plans if finished_shard(self._staging, plan) is None]
        self.reused, self.made = len(plans) - len(missing), self.made + len(missing)
        self._check_space(missing)
        seconds = sum(plan.seconds for plan in missing)
        cost = getattr(self.estimator, 'cost', 0.01) + _COST_BESIDE_F0
        workers = self._options.count_workers(seconds * cost, len(missing))
        try:
            run_shards(missing, self._staging, workers, self._progress)
        except DDSPError as error:
            raise self._explain(error, missing) from error
        shards = [(plan, finished_shard(self._staging, plan)) for plan in plans]
        lost = [plan.stem for plan, row in shards if row is None]
        if lost:
            raise DDSPError(
                f'{len(lost)} shards were not made, such as {lost[0]}. Run the same command again.'
            )
        return [(plan, row) for plan, row in shards if row is not None]

    def _check_space(self, missing: list[ShardPlan]) -> None:
        needed, free = self._bytes_needed(missing), shutil.disk_usage(self._staging).free
        if needed > free:
            raise DDSPError(_no_space(self._staging, needed, free))

    def _bytes_needed(self, plans: list[ShardPlan]) -> int:
        examples = sum(piece.seconds // self._options.hop_secs + 1 for plan in plans for piece in plan.pieces)
        return int(examples * self._options.example_bytes)

    def _explain(self, error: DDSPError, missing: list[ShardPlan]) -> DDSPError:
        if 'No space left' not in str(error):
            return error
        left = [plan for plan in missing if finished_shard(self._staging, plan) is None]
        return DDSPError(
            _no_space(self._staging, self._bytes_needed(left), shutil.disk_usage(self._staging).free)
        )


def plan_shards(pieces: list[Piece], options: PrepareOptions, estimator: F0Estimator) -> list[ShardPlan]:
    """Spreads pieces over shards of about equal length; does not depend on the number of workers.

    Args:
      pieces: What goes into the dataset.
      options: The options; `num_shards` sets the number for each split.
      estimator: The f0 estimator.

    Returns:
      The plans of all splits; every split has one at least.
    """
    plans = []
    for split in options.splits:
        mine = [piece for piece in pieces if piece.split == split]
        wanted = round(sum(piece.seconds for piece in mine) / _SECONDS_PER_SHARD)
        count = options.num_shards or max(1, min(wanted, len(mine), _MAX_SHARDS))
        bins: list[list[Piece]] = [[] for _ in range(count)]
        fill = [0.0] * count
        for piece in sorted(mine, key=lambda piece: (-piece.seconds, piece.sha256)):
            lightest = fill.index(min(fill))
            bins[lightest].append(piece)
            fill[lightest] += piece.seconds
        for i, content in enumerate(bins):
            ordered = tuple(sorted(content, key=lambda piece: piece.sha256))
            weights = getattr(estimator, 'weights_sha256', '')
            plans.append(ShardPlan(split, i, count, ordered, estimator.name, weights, options.to_json()))
    return plans


def _take_outcomes(usable: list[Source], shards: list[tuple[ShardPlan, dict[str, Any]]]) -> int:
    """Writes what the shards found into the sources; returns how many proved unusable."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for _, shard in shards:
        for row in shard['rows']:
            rows.setdefault(row['path'], []).append(row)
    rejected = 0
    for source in usable:
        mine = rows.get(source.path, [])
        bad = [row for row in mine if 'reason' in row]
        source.warnings = list(dict.fromkeys(note for row in mine for note in row['warnings']))
        if bad and len(bad) == len(mine):
            source.reject(bad[0]['reason'], bad[0]['message'])
            rejected += 1
        elif bad:
            source.warnings += [row['message'] for row in bad]
    return rejected


def _check_name(name: str, version: str | None) -> None:
    if not re.fullmatch(r'[A-Za-z][A-Za-z0-9_]*', name):
        near = re.sub(r'\W+', '_', name).strip('_') or 'dataset'
        near = near if near[0].isalpha() else f'd{near}'
        raise ConfigError(
            f'name is {name!r}; it must be letters, digits and underscores and begin with a letter, '
            f'such as {near!r}.'
        )
    if version is not None and not re.fullmatch(r'\d+\.\d+\.\d+', version):
        raise ConfigError(f"version is {version!r}; it must be three numbers such as '1.0.0'.")


@contextlib.contextmanager
def _output_folder(home: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes `<root>/<name>` and keeps other preparations out of it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = open(home / '.lock', 'w')  # noqa: SIM115 (closed below; closing releases the lock)
    except OSError as error:
        raise DDSPError(f'{home} cannot be written: {error.strerror}.') from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DDSPError(
                f'another preparation is running in {home}. Wait for it, or name another dataset.'
            ) from None
        yield home


def _check_usable(sources: list[Source], options: PrepareOptions) -> None:
    """Raises where nothing is usable, or too much is not."""
    rejected = [source for source in sources if source.outcome == 'rejected']
    usable = [source for source in sources if not source.outcome]
    if not usable:
        raise DDSPError(f'no input can be used:{_list(rejected)}')
    share = len(rejected) / (len(rejected) + len(usable))
    if share > options.max_rejected:
        raise DDSPError(
            f'{len(rejected)} of {len(rejected) + len(usable)} inputs ({100 * share:.1f} %) cannot be used '
            f'and at most {100 * options.max_rejected:.1f} % may be so (max_rejected):{_list(rejected)}'
        )


def _list(rejected: list[Source]) -> str:
    lines = [f'\n  {source.message} [{source.reason}]' for source in rejected[:_SHOWN]]
    more = len(rejected) - _SHOWN
    return ''.join(lines) + (f'\n  and {more} more' if more > 0 else '')


def _fingerprint(sources: list[Source], options: PrepareOptions, estimator: F0Estimator) -> str:
    """A hash of everything that decides the content of the dataset."""
    recipe = {
        'version': FEATURES_VERSION,
        'options': options.record(),
        'estimator': [estimator.name, getattr(estimator, 'weights_sha256', '')],
        'sources': [[source.path, source.sha256, source.outcome, source.reason] for source in sources],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _target(home: pathlib.Path, version: str | None, fingerprint: str) -> pathlib.Path:
    """The version directory to publish: one that is there with the same fingerprint, or a new one."""
    published = published_versions(home)
    if version is None:
        if not published:
            return home / '1.0.0'
        newest = published[-1]
        if open_dataset(newest).manifest['fingerprint'] == fingerprint:
            return newest
        major, minor, _ = newest.name.split('.')
        return home / f'{major}.{int(minor) + 1}.0'
    target = home / version
    if target in published and open_dataset(target).manifest['fingerprint'] != fingerprint:
        raise DDSPError(
            f'{target} is published with other inputs or options. A published version does not change: '
            'name another version, or none for the next one.'
        )
    if target.exists() and target not in published:
        raise DDSPError(f'{target} exists and is no published dataset. Remove it or name another version.')
    return target


def _no_space(folder: pathlib.Path, needed: int, free: int) -> str:
    return (
        f'the disk of {folder.parent} is full: about {needed / 1e6:.0f} MB are needed and '
        f'{free / 1e6:.0f} MB are free. Make room and run the same command again: '
        'it goes on where it stopped.'
    )


def _tell(progress: Progress | None, done: float, total: float, text: str) -> None:
    if progress:
        progress(done, total, text)
