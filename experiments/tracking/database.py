"""The database of the tracking store before MLflow opens it: made whole or not at all, upgraded with a copy
aside, by one process at a time, and given up soon when it does not answer.

MLflow runs some sixty migrations on an empty database. Two processes that do so at once, or one that is
killed meanwhile, leave a file that can never be opened again. So a new SQLite database is made under another
name and renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
import re
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from ddsp.errors import DDSPError
from ddsp.io.files import locked
from experiments import masking

_SQLITE = 'sqlite:///'
_CONNECT_SECS = 5  # a server that is there answers sooner
_WAIT_SECS = 300.0  # for another process that makes or upgrades the database, which takes seconds
_POSTGRES_LOCK = 0x64647370  # 'ddsp': key of an advisory lock
_VERSION = 'SELECT version_num FROM alembic_version'


class TrackingError(DDSPError):
    """The tracking store cannot be used, or does not hold what was asked for."""


class ServerDownError(TrackingError):
    """The tracking server, or the server of its database, does not answer."""


def sqlite_path(uri: str) -> pathlib.Path | None:
    """File of an SQLite address; None for any other address, and for a database in memory."""
    path = uri.removeprefix(_SQLITE)
    return pathlib.Path(path) if path not in (uri, '', ':memory:') and '?' not in path else None


@functools.cache
def newest_schema() -> str:
    """Name of the newest migration of the installed MLflow; MLflow is not imported for it."""
    found = importlib.util.find_spec('mlflow')
    if found is None or found.origin is None:
        return ''
    folder = pathlib.Path(found.origin).parent / 'store' / 'db_migrations' / 'versions'
    ids: dict[str, set[str]] = {'revision': set(), 'down_revision': set()}
    for path in folder.glob('*.py'):
        for name, value in re.findall(r'^(\w+) = ["\'](\w+)["\']', path.read_text(encoding='utf-8'), re.M):
            ids.get(name, set()).add(value)
    newest = ids['revision'] - ids['down_revision']
    return newest.pop() if len(newest) == 1 else ''


def _is_newest(version: str) -> bool:
    return bool(version) and newest_schema() in (version, '')


def problem(uri: str) -> str:
    """What is wrong with a database, in a few words; '' when it can be used or does not exist yet."""
    path = sqlite_path(uri)
    try:
        if path is None:
            with _connected(uri):
                return ''
        if not path.exists() or path.stat().st_size == 0:
            return ''
        if _backup_of(path).exists():
            return 'an upgrade was interrupted; the next command that records takes it up again'
        if _query(path, "SELECT name FROM sqlite_master WHERE name LIKE '_alembic_tmp_%'"):
            return 'it was left half-made by an interrupted first use'
        version = schema_version(path)
        if not version:
            return 'it holds no MLflow store'
        if not _is_newest(version):
            return 'its schema is not that of the installed MLflow; the next command that records upgrades it'
    except ServerDownError as error:
        return str(error)
    except sqlite3.Error as error:
        return str(error)
    return ''


def schema_version(path: pathlib.Path) -> str:
    """Migration that an SQLite database is at; '' when it holds no MLflow store."""
    try:
        rows = _query(path, _VERSION)
    except sqlite3.OperationalError as error:
        if 'no such table' in str(error):
            return ''
        raise
    return rows[0][0] if rows else ''


def _query(path: pathlib.Path, statement: str) -> list[tuple]:
    address = f'file:{urllib.parse.quote(str(path.absolute()))}?mode=ro'
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=_CONNECT_SECS)) as connection:
        return connection.execute(statement).fetchall()


def prepare(uri: str) -> None:
    """Makes the database of a store, or brings it to the schema of the installed MLflow.

    Raises:
      TrackingError: The database cannot be used.
    """
    path = sqlite_path(uri)
    if path is not None:
        _prepare_sqlite(path.absolute())
    elif uri.startswith('postgresql'):
        with _connected(uri) as connection:
            _prepare_postgres(uri, connection)


def _prepare_sqlite(path: pathlib.Path) -> None:
    if _is_ready(path):
        return
    busy = f'another process has been making or upgrading {path} for {_WAIT_SECS:.0f} s.'
    with locked(path.parent, busy, name=f'.{path.name}.lock', wait_secs=_WAIT_SECS):
        if _backup_of(path).exists():
            _restore(path)
        if _is_ready(path):
            return
        if path.exists() and path.stat().st_size and _query(path, 'SELECT name FROM sqlite_master'):
            _upgrade(path)
        else:
            _create(path)


def _is_ready(path: pathlib.Path) -> bool:
    """Whether MLflow finds nothing to do in an SQLite database."""
    if not path.exists() or path.stat().st_size == 0 or _backup_of(path).exists():
        return False
    try:
        return _is_newest(schema_version(path)) and bool(_query(path, 'SELECT 1 FROM experiments'))
    except sqlite3.DatabaseError as error:
        if 'locked' in str(error):
            raise TrackingError(
                f'the database {path} is locked by another process. It was waited for {_CONNECT_SECS} s; try '
                'again, or end the process that holds it (an interrupted `sqlite3`, a copy, a backup). Many '
                'processes at once want a server: docs/experiments.md.'
            ) from error
        if 'no such' in str(error):
            return False
        raise TrackingError(f'{path} is not a database that can be read: {error}.') from error


def _create(path: pathlib.Path) -> None:
    """Makes a database under another name; what a killed process has left there goes first."""
    part = path.with_name(f'.{path.name}.part')
    _remove(part)
    _migrate(f'{_SQLITE}{part}')
    part.replace(path)


def _upgrade(path: pathlib.Path) -> None:
    """Upgrades a database in place; a copy lies beside it until that is done.

    In place, for a server that has it open would go on writing into a file that was replaced.
    """
    part, backup = path.with_name(f'.{path.name}.part'), _backup_of(path)
    _remove(part)
    with contextlib.closing(sqlite3.connect(path)) as old, contextlib.closing(sqlite3.connect(part)) as new:
        old.backup(new)
    part.replace(backup)
    try:
        _migrate(f'{_SQLITE}{path}', upgrade=True)
    except Exception as error:
        _restore(path)
        if not _holds_anything(path):  # a first use by MLflow itself that was interrupted
            path.replace(path.with_name(f'{path.name}.broken-{int(time.time())}'))
            _create(path)
            return
        reason = str(error).strip().split('\n')[0]
        raise TrackingError(
            f'{path} cannot be upgraded to the schema of the installed MLflow ({reason}). It is as it was '
            'before; the MLflow that made it can read it.'
        ) from error
    _remove(backup)


def _holds_anything(path: pathlib.Path) -> bool:
    """Whether anything was recorded in a database, however old its tables are."""
    for wanted in ('runs', 'registered_models', 'experiments WHERE experiment_id != 0'):
        with contextlib.suppress(sqlite3.OperationalError):  # no such table
            if _query(path, f'SELECT 1 FROM {wanted} LIMIT 1'):
                return True
    return False


def _restore(path: pathlib.Path) -> None:
    """Puts the copy back that an interrupted upgrade has left."""
    for end in ('-journal', '-wal', '-shm'):  # of the half upgraded file; the copy stays until it is in place
        path.with_name(path.name + end).unlink(missing_ok=True)
    _backup_of(path).replace(path)


def _backup_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f'{path.name}.before-upgrade')


def _remove(path: pathlib.Path) -> None:
    """Removes a database and what SQLite keeps beside it."""
    for end in ('-journal', '-wal', '-shm', ''):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _migrate(uri: str, upgrade: bool = False) -> None:
    """Runs MLflow's migrations and makes its first experiment.

    With `upgrade`, the database has tables of an older MLflow; that upgrade fails on one without tables.
    """
    from mlflow import db
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if upgrade:
        db.upgrade.callback(uri)
    made = SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    made.engine.dispose()


def _prepare_postgres(uri: str, connection: Any) -> None:
    """Lets one process at a time make the tables; PostgreSQL takes back what a killed one has begun.

    An older store is left to MLflow, which says what to do: others may use it.
    """
    import sqlalchemy

    def is_new() -> bool:
        return (
            not sqlalchemy.inspect(connection).has_table('experiments')
            or not connection.execute(sqlalchemy.text('SELECT 1 FROM experiments LIMIT 1')).all()
        )

    if is_new():
        connection.execute(sqlalchemy.text(f'SELECT pg_advisory_lock({_POSTGRES_LOCK})'))
        if is_new():
            _migrate(uri)


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[Any]:
    """A new connection to a database server.

    Raises:
      ServerDownError: No answer within seconds; MLflow alone would try for two minutes.
    """
    import sqlalchemy

    limits = {'connect_timeout': _CONNECT_SECS} if uri.startswith(('postgres', 'mysql')) else {}
    try:
        engine = sqlalchemy.create_engine(
            uri, poolclass=sqlalchemy.NullPool, connect_args=limits, isolation_level='AUTOCOMMIT'
        )
        connection = engine.connect()
    except (sqlalchemy.exc.OperationalError, OSError) as error:
        told = str(getattr(error, 'orig', None) or error).strip().split('\n')[0]
        raise ServerDownError(
            f'the database {masking.shown(uri)} does not answer ({masking.clean(told)}). Start it, or unset '
            'MLFLOW_TRACKING_URI to record runs in mlflow.db in the working directory.'
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise TrackingError(f'the database {masking.shown(uri)} cannot be used: {error}') from None
    with contextlib.closing(connection):
        yield connection
