"""The decisions of a preparation that need all inputs: whether to go on, which version, what goes where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

from ddsp.errors import DDSPError
from ddsp.io import gcs
from pipelines.options import PrepareOptions
from pipelines.publish.earlier import published_bytes, staged_bytes
from pipelines.publish.home import CloudHome, LocalHome
from pipelines.publish.provenance import Provenance
from pipelines.shards.plan import Failure, Plan, Totals, check_usable, own_splits, plan
from pipelines.shards.shard import FEATURES_VERSION


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is to be done.

    Attributes:
      options: How the dataset is made, with its splits.
      inputs, rejected: Number of inputs, and of those that cannot be used.
      failure: Why nothing is to be done.
      version: The version to publish.
      fingerprint: A hash of everything that decides the content of the dataset.
      plan: What goes where; None where nothing is to be made: the version is there, or there is a failure.
    """

    options: PrepareOptions
    inputs: int = 0
    rejected: int = 0
    failure: Failure | None = None
    version: str = ''
    fingerprint: str = ''
    plan: Plan | None = None


def decide(
    totals: Totals,
    home: LocalHome | CloudHome,
    version: str | None,
    options: PrepareOptions,
    provenance: Provenance,
    staging: str,
    lanes: int | None,
) -> Decision:
    """Takes all decisions; what forbids to go on becomes the `failure` of the decision."""
    decision = Decision(options, totals.inputs, totals.rejected)
    try:
        if totals.failures:
            return dataclasses.replace(decision, failure=totals.failures[0])
        check_usable(totals.usable, totals.rejected, totals.named, options)
        options = own_splits(totals, options)
        fingerprint = _fingerprint(totals, options, provenance)
        version, published = _choose_version(home, version, fingerprint)
        decision = dataclasses.replace(decision, options=options, version=version, fingerprint=fingerprint)
        if published:
            return decision
        chosen = plan(totals, options, lanes)
        if not gcs.is_gcs(staging):
            _check_space(home, staging, chosen, totals, options)
        return dataclasses.replace(decision, plan=chosen)
    except DDSPError as error:
        return dataclasses.replace(decision, failure=Failure.of(error))


def _fingerprint(totals: Totals, options: PrepareOptions, provenance: Provenance) -> str:
    recipe = {
        'version': FEATURES_VERSION,
        'options': options.record(),
        'estimator': [provenance.estimator, provenance.estimator_sha256],
        'sources': f'{totals.digest:064x}',
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _choose_version(home: LocalHome | CloudHome, version: str | None, fingerprint: str) -> tuple[str, bool]:
    """The version to publish, and whether it is there already with the same fingerprint."""
    published = home.versions()
    if version is None and not published:
        version = '1.0.0'
    elif version is None:
        newest = home.open(published[-1])
        if newest.manifest['fingerprint'] == fingerprint:
            return newest.version, True
        version = next_version(newest.version)
    target = home.address(version)
    if version in published:
        if home.open(version).manifest['fingerprint'] != fingerprint:
            raise DDSPError(
                f'{target} is published with other inputs or options. A published version does not change: '
                'name another version, or none for the next one.'
            )
        return version, True
    if home.occupied(version):
        raise DDSPError(f'{target} exists and is not a published dataset. Remove it or name another version.')
    return version, False


def next_version(version: str) -> str:
    """The version after this one."""
    major, minor, _ = version.split('.')
    return f'{major}.{int(minor) + 1}.0'


def _check_space(
    home: LocalHome | CloudHome, staging: str, chosen: Plan, totals: Totals, options: PrepareOptions
) -> None:
    """Raises where the disk is too small for what the headers promise and is not there yet."""
    examples = chosen.seconds / options.hop_secs + totals.usable
    there = published_bytes(home) + staged_bytes(staging)  # at least a part of it is what is needed
    needed = int(examples * options.example_bytes) - there
    free = shutil.disk_usage(home.work).free
    if needed > free:
        hint = f' (the length of {totals.unknown} of {totals.usable} recordings is not known)'
        raise DDSPError(
            f'the disk of {home.work} is full: about {needed / 1e6:.0f} MB are needed'
            f'{hint if totals.unknown else ""} and {free / 1e6:.0f} MB are free. Make room and run the same '
            'command again: it goes on where it stopped.'
        )
