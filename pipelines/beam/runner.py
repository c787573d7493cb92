"""Running the graph of a preparation: plans in, shards on disk, progress and interruption on the way."""

from __future__ import annotations

import concurrent.futures
import contextlib
import heapq
import logging
import os
import pathlib
import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from ddsp.errors import DDSPError
from ddsp.io.progress import Progress
from pipelines.beam.counters import read_failures, read_metrics
from pipelines.beam.sdk import FnApiRunner, PipelineOptions, PipelineResult, SubprocessSDKEnvironment, beam
from pipelines.beam.shards import CANCEL_FILE, MakeShard, ShardPlan
from pipelines.options import PrepareOptions

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
    running: Future[PipelineResult] = Future()
    with _quiet_beam(), _one_thread_each(workers):
        threading.Thread(target=_run, args=(plans, folder, workers, running), daemon=True).start()
        try:
            _follow(running, plans, folder, progress)
        except BaseException:
            (folder / CANCEL_FILE).touch()
            concurrent.futures.wait([running], timeout=60)
            raise
    try:
        result = running.result()
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DDSPError(f'the pipeline failed: {lines[-1] if lines else error!r}') from error
    for failure in read_failures(result):
        raise DDSPError(failure)
    return read_metrics(result)


def _run(plans: list[ShardPlan], folder: pathlib.Path, workers: int, running: Future[PipelineResult]) -> None:
    try:
        options = PipelineOptions(flags=[], direct_num_workers=workers, direct_running_mode='in_memory')
        runner = FnApiRunner(default_environment=_processes(folder) if workers > 1 else None)
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            build(pipeline, share_out(plans, workers), folder)
        running.set_result(pipeline.result)
    except BaseException as error:
        running.set_exception(error)


def _processes(folder: pathlib.Path) -> SubprocessSDKEnvironment:
    """Workers as processes, whose log goes into a file and which leave Ctrl-C to this process."""
    command = f'{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER)}'
    log = shlex.quote(str(folder / 'workers.log'))
    return SubprocessSDKEnvironment(command_string=f"trap '' INT; exec {command} >>{log} 2>&1")


def _follow(
    running: Future[PipelineResult],
    plans: list[ShardPlan],
    folder: pathlib.Path,
    progress: Progress | None,
) -> None:
    """Waits for the end; how far it is shows in the size of the files, finished or not."""
    total, before = sum(plan.seconds for plan in plans), _size(folder)
    options = PrepareOptions.from_json(plans[0].options)
    while not concurrent.futures.wait([running], _POLL_SECS).done:
        if progress:
            examples = (_size(folder) - before) / options.example_bytes
            done = min(total, max(0.0, examples * options.hop_secs))
            progress(done, total, f'{done:.0f} of {total:.0f} s of audio analysed')


def _size(folder: pathlib.Path) -> int:
    """Bytes of all files of a folder; one may disappear meanwhile, when it gets its final name."""
    size = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            size += entry.stat().st_size
    return size


@contextlib.contextmanager
def _one_thread_each(workers: int) -> Iterator[None]:
    """Processes started inside use one thread for linear algebra each."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    if workers > 1:
        os.environ.update(dict.fromkeys(_ONE_THREAD, '1'))
    try:
        yield
    finally:
        for name in _ONE_THREAD:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _quiet_beam() -> Iterator[None]:
    """Keeps the runner's own log off the terminal; errors are raised anyway."""
    loggers = [logging.getLogger('apache_beam'), logging.getLogger()]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
