"""Preparation as a whole: recordings in, a published dataset directory out.

Example:
  prepare_dataset('recordings', 'data', 'violin', options=PrepareOptions(frame_rate=250))
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ddsp.errors import ConfigError, DDSPError
from ddsp.f0 import F0Estimator, get_estimator
from ddsp.io.dataset import NAME, VERSION, Dataset, DatasetError
from ddsp.io.progress import Progress
from pipelines.analysis.statistics import Statistics
from pipelines.beam.plan import plan_shards
from pipelines.beam.runner import run_shards
from pipelines.beam.shards import FEATURES_VERSION, SHARD_ROW, Shard, ShardPlan, finished_shard
from pipelines.options import PrepareOptions
from pipelines.publish.home import SHARDS, CloudHome, LocalHome, VersionTaken, open_home
from pipelines.publish.outcomes import judge
from pipelines.publish.publishing import publish
from pipelines.result import PrepareResult, count_inputs, describe
from pipelines.sources.finding import PathLike, find_sources
from pipelines.sources.probing import Inputs, fetch, probe_sources
from pipelines.sources.splits import split_sources
from pipelines.sources.stages import Accepted, Found, Outcome, Probed, Rejected, unusable

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
      name: Name of the dataset: letters, digits and underscores.
      version: Such as `'1.0.0'`; None for the newest one where nothing has changed, otherwise the next.
      options: How; defaults are those of `PrepareOptions`.
      progress: Called from time to time with (seconds of audio done, in all, text).

    Returns:
      What was done.

    Raises:
      ConfigError: A name or an option is not allowed.
      DDSPError: There is no usable input, too many inputs are unusable, or the output cannot be written.
    """
    started = time.monotonic()
    options = options or PrepareOptions()
    _check_name(root, name, version)
    estimator = get_estimator(options.f0)
    home = open_home(root, name)
    found = find_sources(sources)
    options = _own_splits(found, options)
    tell = progress or (lambda *_: None)
    with home.locked():
        inputs = Inputs(home.work)
        tell(0, 1, 'looking into the inputs')
        rows = probe_sources(
            found, inputs, lambda done, total: tell(0, 1, f'looking into the inputs: {done} of {total}')
        )
        _check_usable(rows, options)
        fingerprint = _fingerprint(rows, options, estimator)
        target, there = _choose_version(home, version, fingerprint)
        job = _Job(home, target, options, estimator, progress)
        if there is None:
            outcomes, shards = job.run(rows)
            tell(1, 1, 'publishing')
            metrics = job.made['metrics'] = count_inputs(outcomes) | job.metrics
            while there is None:
                try:
                    publish(home, target, job.staging, shards, outcomes, options, fingerprint, metrics)
                    there = home.open(target)
                except VersionTaken:
                    if version is not None:
                        raise
                    target = _next_version(target)
        else:
            shutil.rmtree(job.staging, ignore_errors=True)  # left by a call that was killed at its very end
        inputs.clear()
    return dataclasses.replace(describe(there), wall_seconds=time.monotonic() - started, **job.made)


class _Job:
    """The making of the shards of one preparation in `staging`; `made` has attributes of `PrepareResult`."""

    def __init__(
        self,
        home: LocalHome | CloudHome,
        version: str,
        options: PrepareOptions,
        estimator: F0Estimator,
        progress: Progress | None,
    ) -> None:
        self._home, self._options, self._estimator, self._progress = home, options, estimator, progress
        self.staging = home.work / f'.{version}.staging'
        self.made: dict[str, Any] = {}
        self.metrics: Counter[str] = Counter()

    def run(self, rows: list[Probed | Rejected]) -> tuple[list[Outcome], list[Shard]]:
        """Makes all shards; plans again where a split was left empty by recordings that proved unusable."""
        self.staging.mkdir(exist_ok=True)
        self._earlier = _earlier_shards(self._home)
        self.made = {'shards_made': 0, 'audio_made': 0.0}
        while True:
            usable = [row for row in rows if isinstance(row, Probed)]
            pieces = split_sources(usable, self._options.splits, self._options.example_secs)
            shards = self._make(plan_shards(pieces, self._options, self._estimator))
            outcomes = judge(rows, shards)
            _check_usable(outcomes, self._options)
            filled = {shard.plan.split for shard in shards if shard.content['examples']}
            if len(unusable(outcomes)) == len(unusable(rows)) or filled == set(self._options.splits):
                break
            rows = [row.probed if isinstance(row, Accepted) else row for row in outcomes]
        costs = sum((Counter(shard.content.get('costs', {})) for shard in shards), Counter[str]())
        self.made['costs'] = {stage: round(seconds, 3) for stage, seconds in costs.items()}
        return outcomes, shards

    def _make(self, plans: list[ShardPlan]) -> list[Shard]:
        missing = [plan for plan in plans if self._find(plan) is None]
        self._check_space(missing)
        for piece in (piece for plan in missing for piece in plan.pieces):
            fetch(piece.path, piece.file)  # an earlier preparation removed the copy
        seconds = sum(plan.seconds for plan in missing)
        self.made['shards_reused'] = len(plans) - len(missing)
        self.made['shards_made'] += len(missing)
        self.made['audio_made'] += seconds
        cost = getattr(self._estimator, 'cost', 0.01) + _COST_BESIDE_F0
        workers = self._options.count_workers(seconds * cost, len(missing))
        try:
            self.metrics.update(run_shards(missing, self.staging, workers, self._progress))
        except DDSPError as error:
            if 'No space left' in str(error):
                self._check_space([plan for plan in missing if self._find(plan) is None], full=True)
            raise
        shards = [shard for plan in plans if (shard := self._find(plan)) is not None]
        if len(shards) < len(plans):
            lost = len(plans) - len(shards)
            raise DDSPError(f'{lost} of {len(plans)} shards were not made. Run the same command again.')
        return shards

    def _find(self, plan: ShardPlan) -> Shard | None:
        """The finished shard of a plan: of this preparation, or of an earlier version."""
        content = finished_shard(self.staging, plan)
        if content is not None:
            return Shard(plan, content)
        version, content = self._earlier.get(plan.fingerprint, ('', None))
        if content is None or not self._home.has_shard(version, content):
            return None
        return Shard(plan, content, f'{version}/{content["name"]}')

    def _check_space(self, plans: list[ShardPlan], full: bool = False) -> None:
        """Raises where the disk is full, or too small for what the headers promise."""
        lengths = [piece.seconds for plan in plans for piece in plan.pieces]
        examples = sum(seconds // self._options.hop_secs + 1 for seconds in lengths)
        needed, free = int(examples * self._options.example_bytes), shutil.disk_usage(self.staging).free
        if needed <= free and not full:
            return
        unknown = lengths.count(0.0)
        hint = f' (the length of {unknown} of {len(lengths)} recordings is not known)' if unknown else ''
        about = 'about' if needed > free else 'more than'
        raise DDSPError(
            f'the disk of {self._home.work} is full: {about} {max(needed, free) / 1e6:.0f} MB are needed'
            f'{hint} and {free / 1e6:.0f} MB are free. Make room and run the same command again: '
            'it goes on where it stopped.'
        )


def _own_splits(rows: list[Found | Rejected], options: PrepareOptions) -> PrepareOptions:
    """The options with the splits that the sources bring along, where they do."""
    counts = Counter(row.split for row in rows if isinstance(row, Found))
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


def _check_usable(rows: Sequence[Probed | Outcome], options: PrepareOptions) -> None:
    """Raises where nothing is usable, or too much is not."""
    rejected = unusable(rows)
    usable = sum(not isinstance(row, Rejected) for row in rows)
    lines = [f'\n  {row.message} [{row.reason}]' for row in rejected[:_SHOWN]]
    more = len(rejected) - _SHOWN
    listed = ''.join(lines) + (f'\n  and {more} more' if more > 0 else '')
    if not usable:
        raise DDSPError(f'no input can be used:{listed}')
    share = len(rejected) / (len(rejected) + usable)
    if share > options.max_rejected:
        raise DDSPError(
            f'{len(rejected)} of {len(rejected) + usable} inputs ({100 * share:.1f} %) cannot be used and at '
            f'most {100 * options.max_rejected:.1f} % may be unusable (max_rejected):{listed}'
        )


def _fingerprint(rows: Iterable[Probed | Rejected], options: PrepareOptions, estimator: F0Estimator) -> str:
    """A hash of everything that decides the content of the dataset."""
    recipe = {
        'version': FEATURES_VERSION,
        'options': options.record(),
        'estimator': [estimator.name, getattr(estimator, 'weights_sha256', '')],
        'sources': [[row.path, row.sha256, row.outcome, row.reason] for row in rows],
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
        raise DDSPError(f'{target} exists and is not a published dataset. Remove it or name another version.')
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
