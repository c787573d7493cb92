"""Running the graph of a preparation: plans in, shards on disk, progress and interruption on the way."""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import os
import pathlib
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterator

from ddsp.errors import DDSPError
from pipelines.analysis.recording import CANCEL_FILE
from pipelines.beam.counters import read_metrics
from pipelines.beam.sdk import FnApiRunner, PipelineOptions, SubprocessSDKEnvironment, beam
from pipelines.beam.shards import FAILURE_MARK, MakeShard, ShardPlan

Progress = Callable[[float, float, str], None]

_POLL_SECS = 0.2
# Beam's own worker. Beam imports two packages that it does not need here, 40 % of a worker's start; who does
# need them (an estimator of one's own) finds them afterwards.
_WORKER = (
    "import sys; names = ('pandas', 'pymongo'); sys.modules.update(dict.fromkeys(names)); "
    'from apache_beam.runners.worker import sdk_worker_main; [sys.modules.pop(name) for name in names]; '
    'sdk_worker_main.main(sys.argv)'
)
_ONE_THREAD = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')


def build(
    pipeline: beam.Pipeline, groups: list[list[ShardPlan]], folder: pathlib.Path
) -> beam.PCollection[str]:
    """The graph: only plans (short strings) are shuffled; one call makes one whole shard.

    Args:
      pipeline: Where to build it.
      groups: The shards to make; those of a group are made by the same worker, one after the other.
      folder: Where they go; every worker sees it.

    Returns:
      The keys of the shards.
    """
    return (
        pipeline
        | 'Plans' >> beam.Create([[plan.to_json() for plan in group] for group in groups])
        | 'Spread' >> beam.Reshuffle()
        | 'OneByOne' >> beam.FlatMap(list)
        | 'MakeShards' >> beam.ParDo(MakeShard(str(folder)))
    )


def share_out(plans: list[ShardPlan], workers: int) -> list[list[ShardPlan]]:
    """Groups of about as many seconds each, one a worker; the runner itself deals shards out by number.

    Longest first, each to the group that has least so far (Graham 1969): within 4/3 of the best.
    """
    groups: list[list[ShardPlan]] = [[] for _ in range(min(workers, len(plans)))]
    loads = [(0.0, i) for i in range(len(groups))]
    for plan in sorted(plans, key=lambda plan: (-plan.seconds, plan.key)):
        load, i = heapq.heappop(loads)
        groups[i].append(plan)
        heapq.heappush(loads, (load + plan.seconds, i))
    return groups


def run_shards(
    plans: list[ShardPlan], folder: pathlib.Path, workers: int, progress: Progress | None = None
) -> dict[str, float]:
    """Makes shards on this machine.

    Args:
      plans: The shards to make.
      folder: Where they go.
      workers: Number of processes; 1 works in this one.
      progress: Called with (seconds of audio done, in all, text).

    Returns:
      What the workers counted: see `pipelines.beam.counters.read_metrics`.

    Raises:
      DDSPError: What went wrong in a worker.
      KeyboardInterrupt: After Ctrl-C, when the workers have stopped.
    """
    if not plans:
        return {}
    (folder / CANCEL_FILE).unlink(missing_ok=True)
    for plan in plans:
        (folder / f'{plan.key}.progress').unlink(missing_ok=True)
    failure: list[BaseException] = []
    metrics: dict[str, float] = {}
    thread = threading.Thread(target=_run, args=(plans, folder, workers, failure, metrics), daemon=True)
    with _quiet_beam(), _one_thread_each(workers):
        thread.start()
        try:
            _follow(thread, plans, folder, progress)
        except BaseException:
            (folder / CANCEL_FILE).touch()
            thread.join(timeout=60)
            raise
    if failure:
        raise _readable(failure[0]) from failure[0]
    return metrics


def _run(
    plans: list[ShardPlan],
    folder: pathlib.Path,
    workers: int,
    failure: list[BaseException],
    metrics: dict[str, float],
) -> None:
    try:
        options = PipelineOptions(flags=[], direct_num_workers=workers, direct_running_mode='in_memory')
        runner = FnApiRunner(default_environment=_processes(folder) if workers > 1 else None)
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            build(pipeline, share_out(plans, workers), folder)
        metrics.update(read_metrics(pipeline.result))
    except BaseException as error:
        failure.append(error)


def _processes(folder: pathlib.Path) -> SubprocessSDKEnvironment:
    """Workers as processes, whose log goes into a file and which leave Ctrl-C to this process."""
    command = f'{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER)}'
    log = shlex.quote(str(folder / 'workers.log'))
    return SubprocessSDKEnvironment(command_string=f"trap '' INT; exec {command} >>{log} 2>&1")


def _follow(
    thread: threading.Thread, plans: list[ShardPlan], folder: pathlib.Path, progress: Progress | None
) -> None:
    total = sum(plan.seconds for plan in plans)
    while thread.is_alive():
        thread.join(_POLL_SECS)
        if progress:
            done = min(total, sum(_seconds_done(folder, plan) for plan in plans))
            progress(done, total, f'{done:.0f} of {total:.0f} s of audio analysed')


def _seconds_done(folder: pathlib.Path, plan: ShardPlan) -> float:
    try:
        return float((folder / f'{plan.key}.progress').read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def _readable(error: BaseException) -> BaseException:
    """The worker's own message out of the runner's traceback."""
    found = re.search(re.escape(FAILURE_MARK) + r'("(?:[^"\\]|\\.)*")', str(error).replace('\\\\', '\\'))
    if found:
        with contextlib.suppress(ValueError):
            return DDSPError(json.loads(found.group(1)))
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return DDSPError(f'the pipeline failed: {lines[-1] if lines else error!r}')


@contextlib.contextmanager
def _one_thread_each(workers: int) -> Iterator[None]:
    """Processes started inside use one thread for linear algebra each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    if workers > 1:
        os.environ.update(dict.fromkeys(_ONE_THREAD, '1'))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet_beam() -> Iterator[None]:
    """Keeps the runner's own log off the terminal; errors are raised anyway."""
    logger = logging.getLogger('apache_beam')
    root = logging.getLogger()
    levels = logger.level, root.level
    logger.setLevel(logging.CRITICAL)
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(levels[0])
        root.setLevel(levels[1])
