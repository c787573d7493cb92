"""What was submitted from here: a small file for each job, in a folder."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import time

from ddsp.io import files
from experiments.launch.job import Job, LaunchError

FILE = 'job.json'


@dataclasses.dataclass
class Record:
    """A job that was submitted.

    Attributes:
      name: Its name.
      executor: Name of the engine.
      command: The words after `ddsp`.
      replicas: Number of processes.
      submitted: Seconds since 1970.
      handle: The engine's name of it; `''` until the engine has answered.
      cancelled: Whether it was cancelled from here.
    """

    name: str
    executor: str
    command: list[str]
    replicas: int
    submitted: float
    handle: str = ''
    cancelled: bool = False

    def write(self) -> None:
        """Writes the file anew."""
        files.write_json(job_folder(self.name) / FILE, dataclasses.asdict(self))

    def remove(self) -> None:
        """Forgets a job that was not submitted; what its engine wrote stays."""
        folder = job_folder(self.name)
        (folder / FILE).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def jobs_folder() -> pathlib.Path:
    """`DDSP_JOBS_DIR`, or `jobs` in the working directory; absolute."""
    return pathlib.Path(os.environ.get('DDSP_JOBS_DIR') or 'jobs').absolute()


def job_folder(name: str) -> pathlib.Path:
    """Folder of a job: its record, and logs where they are files."""
    return jobs_folder() / name


def begin(executor: str, job: Job) -> Record:
    """A record before the job is submitted, so that it is known whatever happens then.

    Raises:
      LaunchError: There is a job of this name.
    """
    record = Record(job.name, executor, list(job.command), job.replicas, time.time())
    folder = job_folder(job.name)
    folder.mkdir(parents=True, exist_ok=True)  # may hold the logs of a job that was refused
    try:
        (folder / FILE).touch(exist_ok=False)
    except FileExistsError:
        raise LaunchError(
            f'there is a job {job.name!r} already ({folder}). Give another --name, or remove that folder'
        ) from None
    record.write()
    return record


def read(name: str) -> Record:
    """The record of a job.

    Raises:
      LaunchError: There is none, or it is damaged.
    """
    path = job_folder(name) / FILE
    try:
        return Record(**json.loads(path.read_text()))
    except FileNotFoundError:
        known = ', '.join(record.name for record in every()) or 'none'
        raise LaunchError(f'no job {name!r} in {jobs_folder()}; there are: {known}') from None
    except (ValueError, TypeError) as error:
        raise LaunchError(f'{path} is damaged: {error}') from error


def every() -> list[Record]:
    """All records, newest first."""
    found = [read(path.parent.name) for path in jobs_folder().glob(f'*/{FILE}')]
    return sorted(found, key=lambda record: record.submitted, reverse=True)
