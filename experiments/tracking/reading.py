"""Runs of a store, read without importing MLflow, which alone takes longer than a list of runs may take.

`reader` gives an object with those methods of `mlflow.MlflowClient` that lists and comparisons need: an
SQLite store is read by SQL, a server through its REST interface. Whatever is not known here (another
database, an older schema, the rest of the filter grammar, a login) is asked of MLflow's own client.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.tracking import store

_PAGE = 1000
_TABLES = {'metric': 'latest_metrics', 'param': 'params', 'tag': 'tags'}
_COLUMNS = {'run_id': 'run_uuid', 'status': 'status', 'start_time': 'start_time', 'end_time': 'end_time'}
_FIELD = r'(?:(metric|param|tag|attribute)s?\.)?(?:`([^`]+)`|"([^"]+)"|([\w./]+))'
_CONDITION = re.compile(
    rf"""\s*{_FIELD}\s*(<=|>=|!=|=|<|>)\s*(?:'([^']*)'|"([^"]*)"|(-?[\d.]+(?:e-?\d+)?))\s*""", re.I
)
_ORDER = re.compile(rf'{_FIELD}(?: (ASC|DESC))?', re.I)


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """As `mlflow.entities.RunInfo`."""

    run_id: str
    experiment_id: str
    run_name: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str


@dataclasses.dataclass(frozen=True)
class RunData:
    """As `mlflow.entities.RunData`."""

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
    """As `mlflow.entities.Run`, without inputs and outputs."""

    info: RunInfo
    data: RunData


@dataclasses.dataclass(frozen=True)
class Experiment:
    """As `mlflow.entities.Experiment`."""

    experiment_id: str
    name: str


class Page(list):
    """Runs, and the token with which the next ones are asked for."""

    token: str | None = None


class NotKnownHere(Exception):
    """Something that only MLflow's own client can answer."""


def reader(uri: str | None = None) -> Any:
    """What reads the store at `uri` (that in use when None) fastest; see the module.

    Raises:
      TrackingError: The server does not answer, or the database cannot be opened.
    """
    uri = uri or store.tracking_uri()
    path = uri.removeprefix('sqlite:///')
    if path != uri and '?' not in path:
        return SqliteReader(uri, path)
    login = [name for name in os.environ if re.match(r'MLFLOW_TRACKING_(?!URI$)', name)]
    if uri.startswith('http') and not login and not urllib.parse.urlparse(uri).username:
        if problem := store.server_problem(uri):
            raise store.server_error(uri, problem)
        return RestReader(uri)
    return store.client(uri)


class StoreReader:
    """A store that is read here as far as it is understood, and through MLflow's client beyond that."""

    def __init__(self, uri: str):
        self.uri = uri

    @functools.cached_property
    def _client(self) -> Any:
        return store.client(self.uri)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)
        return getattr(self._client, name)

    def search_experiments(self) -> list[Any]:
        """Experiments that are not deleted."""
        try:
            return self._experiments()
        except NotKnownHere:
            return self._client.search_experiments()

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = '',
        *,
        max_results: int = _PAGE,
        order_by: Sequence[str] = (),
        page_token: str | None = None,
    ) -> Any:
        """One page of runs; the arguments are those of MLflow."""
        try:
            return self._runs(experiment_ids, filter_string, max_results, order_by, page_token)
        except NotKnownHere:
            return self._client.search_runs(
                experiment_ids, filter_string, max_results=max_results, order_by=order_by,
                page_token=page_token,
            )  # fmt: skip

    def get_run(self, run_id: str) -> Any:
        """One run."""
        try:
            return self._run(run_id)
        except NotKnownHere:
            return self._client.get_run(run_id)

    def download_artifacts(self, run_id: str, path: str) -> str:
        """A run's file or folder on this disk: that of a local store itself."""
        location = self.get_run(run_id).info.artifact_uri
        if not location.startswith(('file:', '/')):
            return self._client.download_artifacts(run_id, path)
        folder = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlparse(location).path))
        if not (folder / path).exists():
            raise FileNotFoundError(folder / path)
        return str(folder / path)

    def _experiments(self) -> list[Experiment]:
        raise NotImplementedError

    def _runs(self, ids: Sequence[str], condition: str, count: int, order: Sequence[str], token: str | None):
        raise NotImplementedError

    def _run(self, run_id: str) -> Run:
        raise NotImplementedError


class SqliteReader(StoreReader):
    """An SQLite store, read by SQL: a database that does not exist is one without runs."""

    def __init__(self, uri: str, path: str):
        super().__init__(uri)
        self._path = pathlib.Path(path).absolute()

    def _fetch(self, statement: str, values: Iterable[Any] = ()) -> list[tuple]:
        if not self._path.exists():
            return []
        address = f'file:{urllib.parse.quote(str(self._path))}?mode=ro'
        try:
            connection = sqlite3.connect(address, uri=True, timeout=20.0)
            try:
                return connection.execute(statement, tuple(values)).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:  # another schema, or no database: MLflow's client migrates or explains
            raise NotKnownHere(str(error)) from error

    def _experiments(self) -> list[Experiment]:
        rows = self._fetch(
            "SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active' "
            "AND workspace = 'default'"
        )
        return [Experiment(str(number), name) for number, name in rows]

    def _runs(
        self, ids: Sequence[str], condition: str, count: int, order: Sequence[str], token: str | None
    ) -> Page:
        joins, sort, order_values = _order_sql(order)
        where, where_values = _filter_sql(condition)
        places = ', '.join('?' * len(ids))
        rows = self._fetch(
            f"{_SELECT} {joins} WHERE r.lifecycle_stage = 'active' AND r.experiment_id IN ({places}) {where} "
            f'ORDER BY {sort} r.start_time DESC, r.run_uuid LIMIT ? OFFSET ?',
            [*order_values, *map(int, ids), *where_values, count + 1, int(token or 0)],
        )
        page = Page(self._complete(rows[:count]))
        page.token = str(int(token or 0) + count) if len(rows) > count else None
        return page

    def _run(self, run_id: str) -> Run:
        found = self._complete(self._fetch(f'{_SELECT} WHERE r.run_uuid = ?', [run_id]))
        if not found:
            raise LookupError(run_id)
        return found[0]

    def _complete(self, rows: Sequence[tuple]) -> list[Run]:
        """Runs with their parameters, metrics and tags."""
        ids = [row[0] for row in rows]
        places = ', '.join('?' * len(ids))

        def values(columns: str, table: str) -> dict[str, dict[str, Any]]:
            found: dict[str, dict[str, Any]] = {run_id: {} for run_id in ids}
            statement = f'SELECT run_uuid, key, {columns} FROM {table} WHERE run_uuid IN ({places})'
            for run_id, key, value in self._fetch(statement, ids):
                found[run_id][key] = value
            return found

        params, tags = values('value', 'params'), values('value', 'tags')
        metrics = values('CASE WHEN is_nan THEN NULL ELSE value END', 'latest_metrics')
        runs = []
        for run_id, experiment, name, *rest in rows:
            numbers = {
                key: float('nan') if value is None else value for key, value in metrics[run_id].items()
            }
            name = name or tags[run_id].get('mlflow.runName', '')
            info = RunInfo(run_id, str(experiment), name, *rest)
            runs.append(Run(info, RunData(params[run_id], numbers, tags[run_id])))
        return runs


_SELECT = (
    'SELECT r.run_uuid, r.experiment_id, r.name, r.status, r.start_time, r.end_time, r.artifact_uri, '
    'r.lifecycle_stage FROM runs r'
)


def _field(match: re.Match) -> tuple[str, str]:
    """Kind and name of what a condition or an order speaks of."""
    kind, *names = match.groups()[:4]
    name = next(name for name in names if name)
    if (kind or 'attribute').lower() != 'attribute':
        return kind.lower(), name
    if name == 'run_name':  # as MLflow does
        return 'tag', 'mlflow.runName'
    if name not in _COLUMNS:
        raise NotKnownHere(name)
    return 'attribute', _COLUMNS[name]


def _filter_sql(condition: str) -> tuple[str, list[Any]]:
    """SQL of a filter that is a conjunction of comparisons."""
    clauses, values = [], []
    place = 0
    while condition[place:].strip():
        match = _CONDITION.match(condition, place)
        if match is None:
            raise NotKnownHere(condition)
        kind, name = _field(match)
        operator, *texts = match.groups()[4:]
        value: Any = next(text for text in texts if text is not None)
        if (kind == 'metric' or name.endswith('_time')) != (texts[2] is not None):
            raise NotKnownHere(condition)  # MLflow's client says what is wrong with it
        value = float(value) if texts[2] is not None else value
        if kind == 'attribute':
            clauses.append(f'AND r.{name} {operator} ?')
            values.append(value)
        else:
            nan = {'metric': ' OR t.is_nan' if operator == '!=' else ' AND NOT t.is_nan'}.get(kind, '')
            clauses.append(
                f'AND EXISTS (SELECT 1 FROM {_TABLES[kind]} t WHERE t.run_uuid = r.run_uuid '
                f'AND t.key = ? AND (t.value {operator} ?{nan}))'
            )
            values += [name, value]
        place = match.end()
        joint = re.compile(r'and\b', re.I).match(condition, place)
        if joint is None and condition[place:].strip():
            raise NotKnownHere(condition)
        place = joint.end() if joint else place
        if joint and not condition[place:].strip():
            raise NotKnownHere(condition)
    return ' '.join(clauses), values


def _order_sql(order: Sequence[str]) -> tuple[str, str, list[Any]]:
    """Joins and sort keys; what has no value comes last."""
    joins, keys, values = '', '', []
    for number, clause in enumerate(order):
        match = _ORDER.fullmatch(clause.strip())
        if match is None:
            raise NotKnownHere(clause)
        kind, name = _field(match)
        direction = match[5] or 'ASC'
        if kind == 'attribute':
            keys += f'r.{name} IS NULL, r.{name} {direction}, '
            continue
        joins += (
            f' LEFT JOIN {_TABLES[kind]} o{number} ON o{number}.run_uuid = r.run_uuid AND o{number}.key = ?'
        )
        values.append(name)
        nan = f'WHEN o{number}.is_nan THEN 1 ' if kind == 'metric' else ''
        keys += f'CASE {nan}WHEN o{number}.value IS NULL THEN 2 ELSE 0 END, o{number}.value {direction}, '
    return joins, keys, values


class RestReader(StoreReader):
    """A tracking server, read through its REST interface."""

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f'{self.uri.rstrip("/")}/api/2.0/mlflow/{path}',
            data=None if body is None else json.dumps(body).encode(),
            headers={'Content-Type': 'application/json'},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except (OSError, ValueError) as error:  # a refusal too: MLflow's client words it
            raise NotKnownHere(str(error)) from error

    def _experiments(self) -> list[Experiment]:
        found: list[Experiment] = []
        token = ''
        while True:
            answer = self._ask('experiments/search', {'max_results': _PAGE, 'page_token': token})
            found += [Experiment(one['experiment_id'], one['name']) for one in answer.get('experiments', [])]
            token = answer.get('next_page_token', '')
            if not token:
                return found

    def _runs(
        self, ids: Sequence[str], condition: str, count: int, order: Sequence[str], token: str | None
    ) -> Page:
        answer = self._ask(
            'runs/search',
            {
                'experiment_ids': list(ids), 'filter': condition, 'max_results': count,
                'order_by': list(order), 'page_token': token or '',
            },
        )  # fmt: skip
        page = Page(_run_of(one) for one in answer.get('runs', []))
        page.token = answer.get('next_page_token') or None
        return page

    def _run(self, run_id: str) -> Run:
        return _run_of(self._ask(f'runs/get?run_id={urllib.parse.quote(run_id)}')['run'])


def _run_of(answer: Mapping[str, Any]) -> Run:
    """A run from the JSON of the REST interface."""
    info, data = answer['info'], answer.get('data', {})
    pairs = {
        kind: {entry['key']: entry.get('value', '') for entry in data.get(kind, [])}
        for kind in ('params', 'metrics', 'tags')
    }
    ended = info.get('end_time')
    return Run(
        RunInfo(
            run_id=info['run_id'], experiment_id=info['experiment_id'], run_name=info.get('run_name', ''),
            status=info['status'], start_time=int(info.get('start_time', 0)),
            end_time=int(ended) if ended else None, artifact_uri=info.get('artifact_uri', ''),
            lifecycle_stage=info['lifecycle_stage'],
        ),
        RunData(
            params=pairs['params'], tags=pairs['tags'],
            metrics={name: float(value) for name, value in pairs['metrics'].items()},
        ),
    )  # fmt: skip
