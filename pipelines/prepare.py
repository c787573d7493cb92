"""Preparation as a whole: recordings in, a published dataset directory out.

Example:
  prepare_dataset('recordings', 'data', 'violin', options=PrepareOptions(frame_rate=250))
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import F0Estimator, get_estimator
from ddsp.io.dataset import NAME, VERSION, Dataset, DatasetError
from ddsp.io.decoding import shown
from pipelines.analysis.recording import PATH_MARK
from pipelines.analysis.statistics import Statistics
from pipelines.beam.plan import plan_shards
from pipelines.beam.runner import run_shards
from pipelines.beam.shards import FEATURES_VERSION, SHARD_ROW, Shard, ShardPlan, finished_shard
from pipelines.options import PrepareOptions
from pipelines.publish.home import SHARDS, CloudHome, LocalHome, VersionTaken, open_home
from pipelines.publish.publishing import publish
from pipelines.result import PrepareResult, count_inputs, describe_made, describe_published
from pipelines.sources.finding import Source, find_sources, survey
from pipelines.sources.inputs import Inputs
from pipelines.sources.splits import split_sources

Progress = Callable[[float, float, str], None]
PathLike = str | os.PathLike[str]

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
      sources: Files, folders and patterns, here or on gs://.
      root: Folder of all datasets, here or on gs://.
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
    _check_name(root, name, version)
    estimator = get_estimator(options.f0)
    home = open_home(root, name)
    found = find_sources(sources)
    options = _own_splits(found, options)
    with home.locked():
        inputs = Inputs(home.work)
        _tell(progress, 0, 1, 'looking into the inputs')
        survey(
            found,
            inputs,
            lambda done, total: _tell(progress, 0, 1, f'looking into the inputs: {done} of {total}'),
        )
        _check_usable(found, options)
        fingerprint = _fingerprint(found, options, estimator)
        named = version is not None
        version, there = _choose_version(home, version, fingerprint)
        if there is not None:
            shutil.rmtree(
                home.work / f'.{version}.staging', ignore_errors=True
            )  # of a call killed at its end
            inputs.clear()
            return describe_published(there, time.monotonic() - started)
        job = _Job(home, version, options, estimator, inputs, progress)
        shards = job.run(found)
        _tell(progress, 1, 1, 'publishing')
        metrics = count_inputs(found) | dict(job.metrics)
        while True:
            try:
                statistics = publish(home, version, job.staging, shards, found, options, fingerprint, metrics)
                break
            except VersionTaken:
                if named:
                    raise
                version = _next_version(version)
        inputs.clear()
    target = home.address(version)
    wall = time.monotonic() - started
    made = describe_made(
        target, found, shards, statistics, options.splits, job.made, job.reused, job.audio_made, wall
    )
    return dataclasses.replace(made, metrics=metrics)


class _Job:
    """The making of the shards of one preparation."""

    def __init__(
        self,
        home: LocalHome | CloudHome,
        version: str,
        options: PrepareOptions,
        estimator: F0Estimator,
        inputs: Inputs,
        progress: Progress | None,
    ) -> None:
        self._home, self._options, self._inputs, self._progress = home, options, inputs, progress
        self.staging = home.work / f'.{version}.staging'
        self.estimator = estimator
        self.made = self.reused = 0
        self.audio_made = 0.0
        self.metrics: Counter[str] = Counter()
        self._earlier = _earlier_shards(home)

    def run(self, sources: list[Source]) -> list[Shard]:
        """Makes all shards; plans again where a split was left empty by recordings that proved unusable."""
        self.staging.mkdir(exist_ok=True)
        while True:
            usable = [source for source in sources if not source.outcome]
            pieces = split_sources(usable, self._options.splits, self._options.example_secs)
            plans = plan_shards(pieces, self._options, self.estimator)
            shards = self._make(plans)
            newly_rejected = _take_outcomes(usable, shards)
            _check_usable(sources, self._options)
            filled = {shard.plan.split for shard in shards if shard.content['examples']}
            if not newly_rejected or filled == set(self._options.splits):
                break
        for source in sources:
            source.outcome = source.outcome or 'accepted'
        return shards

    def _make(self, plans: list[ShardPlan]) -> list[Shard]:
        missing = [plan for plan in plans if self._find(plan) is None]
        self.reused, self.made = len(plans) - len(missing), self.made + len(missing)
        self._check_space(missing)
        for piece in (piece for plan in missing for piece in plan.pieces):
            self._inputs.fetch_again(piece.path, piece.local)
        seconds = sum(plan.seconds for plan in missing)
        self.audio_made += seconds
        cost = getattr(self.estimator, 'cost', 0.01) + _COST_BESIDE_F0
        workers = self._options.count_workers(seconds * cost, len(missing))
        try:
            self.metrics.update(run_shards(missing, self.staging, workers, self._progress))
        except DDSPError as error:
            raise self._explain(error, missing) from error
        found = [self._find(plan) for plan in plans]
        lost = found.count(None)
        if lost:
            raise DDSPError(f'{lost} of {len(plans)} shards were not made. Run the same command again.')
        return [shard for shard in found if shard is not None]

    def _find(self, plan: ShardPlan) -> Shard | None:
        """The finished shard of a plan: of this preparation, or of an earlier version."""
        content = finished_shard(self.staging, plan)
        if content is not None:
            return Shard(plan, content)
        version, content = self._earlier.get(plan.fingerprint, ('', None))
        if content is None or not self._home.has_shard(version, content):
            return None
        return Shard(plan, content, f'{version}/{content["name"]}')

    def _check_space(self, missing: list[ShardPlan]) -> None:
        needed, free = self._bytes_needed(missing), shutil.disk_usage(self.staging).free
        if needed > free:
            raise _no_space(self.staging, missing, needed, free)

    def _bytes_needed(self, plans: list[ShardPlan]) -> int:
        examples = sum(piece.seconds // self._options.hop_secs + 1 for plan in plans for piece in plan.pieces)
        return int(examples * self._options.example_bytes)

    def _explain(self, error: DDSPError, missing: list[ShardPlan]) -> DDSPError:
        if 'No space left' not in str(error):
            return error
        left = [plan for plan in missing if finished_shard(self.staging, plan) is None]
        free = shutil.disk_usage(self.staging).free
        return _no_space(self.staging, left, self._bytes_needed(left), free)


def _take_outcomes(usable: list[Source], shards: list[Shard]) -> int:
    """Writes what the shards found into the sources; returns how many proved unusable."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for shard in shards:
        for piece, row in shard.rows():
            if 'message' in row:
                row = row | {'message': row['message'].replace(PATH_MARK, shown(piece.path))}
            rows.setdefault(piece.path, []).append(row)
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


def _own_splits(sources: list[Source], options: PrepareOptions) -> PrepareOptions:
    """The options with the splits that the sources bring along, where they do."""
    counts = Counter(source.split for source in sources if not source.outcome)
    if not any(counts):
        return options
    if '' in counts:
        raise ConfigError(
            'a dataset that brings its own splits cannot be mixed with recordings that have none: take one '
            'of its splits (tfds:NAME#SPLIT), whose recordings are shared out with the others, or make two '
            'datasets.'
        )
    total = counts.total()
    return dataclasses.replace(options, splits={name: count / total for name, count in counts.items()})


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


def _choose_version(
    home: LocalHome | CloudHome, version: str | None, fingerprint: str
) -> tuple[str, Dataset | None]:
    """The version to publish, with the dataset where it is there already with the same fingerprint."""
    published = home.versions()
    if version is None and not published:
        version = '1.0.0'
    elif version is None:
        newest = home.open(published[-1])
        if newest.manifest['fingerprint'] == fingerprint:
            return newest.version, newest
        version = _next_version(newest.version)
    target = home.address(version)
    if version in published:
        there = home.open(version)
        if there.manifest['fingerprint'] != fingerprint:
            raise DDSPError(
                f'{target} is published with other inputs or options. A published version does not change: '
                'name another version, or none for the next one.'
            )
        return version, there
    if home.occupied(version):
        raise DDSPError(f'{target} exists and is no published dataset. Remove it or name another version.')
    return version, None


def _next_version(version: str) -> str:
    major, minor, _ = version.split('.')
    return f'{major}.{int(minor) + 1}.0'


def _earlier_shards(home: LocalHome | CloudHome) -> dict[str, tuple[str, dict[str, Any]]]:
    """The shards of published versions by fingerprint: version and line of shards.jsonl."""
    found = {}
    for version in home.versions():
        dataset = home.open(version)
        listed = {row['name']: row for split in dataset.manifest['splits'].values() for row in split['files']}
        for row in dataset.rows(SHARDS, SHARD_ROW) if SHARDS in dataset.manifest['files'] else []:
            published = listed.get(row['name'], {})
            try:
                same = all(published.get(key) == row[key] for key in ('bytes', 'sha256', 'examples'))
                Statistics.from_json(row['statistics'])
            except (ValueError, IndexError):  # of lists that are too short or too long
                same = False
            if not same:
                raise DatasetError(f'{dataset.file(SHARDS)} is damaged: the row of {row["name"]!r}.')
            found[row['fingerprint']] = (version, row)
    return found


def _no_space(folder: pathlib.Path, plans: list[ShardPlan], needed: int, free: int) -> DDSPError:
    lengths = [piece.seconds for plan in plans for piece in plan.pieces]
    unknown = lengths.count(0.0)
    hint = f' (the length of {unknown} of {len(lengths)} recordings is not known)' if unknown else ''
    about = 'about' if needed > free else 'more than'  # it is full, whatever the headers made of it
    return DDSPError(
        f'the disk of {folder.parent} is full: {about} {max(needed, free) / 1e6:.0f} MB are needed{hint} and '
        f'{free / 1e6:.0f} MB are free. Make room and run the same command again: '
        'it goes on where it stopped.'
    )


def _tell(progress: Progress | None, done: float, total: float, text: str) -> None:
    if progress:
        progress(done, total, text)
