"""Shards of published versions: what is in one of them already is not made again."""

from __future__ import annotations

import json
from typing import Any

from ddsp.io import storage
from ddsp.io.dataset import Dataset, DatasetError
from pipelines.analysis.statistics import Statistics
from pipelines.publish.home import SHARDS, CloudHome, LocalHome
from pipelines.shards.shard import SHARD_ROW, ShardPlan


class EarlierShards:
    """The shards of all versions of a dataset by their fingerprints, read when they are first asked for."""

    def __init__(self, home: LocalHome | CloudHome) -> None:
        self._home = home
        # The version and where in its shards.jsonl the row is: rows are as long as their shard has pieces.
        self._known: dict[str, tuple[str, int]] | None = None

    def find(self, plan: ShardPlan) -> tuple[str, dict[str, Any]] | None:
        """The address of a shard within the dataset's folder and its row, where a version has it whole."""
        if self._known is None:
            self._known = {}
            for version in self._home.versions():
                self._read(version, self._home.open(version))
        if plan.fingerprint not in self._known:
            return None
        version, offset = self._known[plan.fingerprint]
        with self._home.open(version).file(SHARDS).open('rb') as file:
            file.seek(offset)
            row = json.loads(file.readline())
        if len(row['rows']) != len(plan.pieces) or not self._home.has_shard(version, row):
            return None
        return f'{version}/{row["name"]}', row

    def _read(self, version: str, dataset: Dataset) -> None:
        assert self._known is not None
        if SHARDS not in dataset.manifest['files']:
            return
        listed = {row['name']: row for split in dataset.manifest['splits'].values() for row in split['files']}
        for offset, row in dataset.lines(SHARDS, SHARD_ROW):
            published = listed.get(row['name'], {})
            try:
                same = all(published.get(key) == row[key] for key in ('bytes', 'sha256', 'examples'))
                Statistics.from_json(row['statistics'])
            except (ValueError, IndexError):  # of lists that are too short or too long
                same = False
            if not same:
                raise DatasetError(f'{dataset.file(SHARDS)} is damaged: the row of {row["name"]!r}.')
            self._known[row['fingerprint']] = (version, offset)


def published_bytes(home: LocalHome | CloudHome) -> int:
    """Size of all shards of all versions."""
    return sum(
        row['bytes']
        for version in home.versions()
        for split in home.open(version).manifest['splits'].values()
        for row in split['files']
    )


def staged_bytes(staging: str) -> int:
    """Size of the shards that an interrupted preparation left."""
    return sum(storage.size(file) or 0 for file in storage.list_files(staging))
