"""Running the graph of a preparation: plans in, shards on disk, progress and interruption on the way."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import pathlib
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from ddsp.errors import DDSPError
from ddsp.io.decoding import shown
from ddsp.io.progress import Progress
from pipelines.beam.plan import spread
from pipelines.beam.sdk import FnApiRunner, PipelineOptions, PipelineResult, SubprocessSDKEnvironment, beam
from pipelines.beam.shards import (
    AT_SUFFIX,
    CANCEL_FILE,
    MakeShard,
    ShardPlan,
    left_by_the_dead,
    read_failures,
    read_metrics,
)

_POLL_SECS = 0.2
# Beam's own worker. Beam imports two packages that it does not need here, 40 % of a worker's start; who does
# need them (an estimator of one's own) finds them afterwards.
_WORKER = (
    "import sys; names = ('pandas', 'pymongo'); sys.modules.update(dict.fromkeys(names)); "
    'from apache_beam.runners.worker import sdk_worker_main; [sys.modules.pop(name) for name in names]; '
    'sdk_worker_main.main(sys.argv)'
)
_ONE_THREAD = 'OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1'


def build(
    pipeline: beam.Pipeline, groups: list[list[ShardPlan]], folder: pathlib.Path
) -> beam.PCollection[str]:
    """The graph: only plans are shuffled, never audio; one call makes one whole shard in `folder`.

    The shards of a group are made by the same worker, one after the other. Gives the keys of the shards.
    """
    return (
        pipeline
        | 'Plans' >> beam.Create(groups)
        | 'Spread' >> beam.Reshuffle()
        | 'OneByOne' >> beam.FlatMap(list)
        | 'MakeShards' >> beam.ParDo(MakeShard(str(folder)))
    )


def run_shards(
    plans: list[ShardPlan], folder: pathlib.Path, workers: int, progress: Progress | None = None
) -> dict[str, float]:
    """Makes shards on this machine, in `folder`.

    With one worker all happens in this process. Returns what `read_metrics` found.

    Raises:
      DDSPError: What went wrong in a worker.
      KeyboardInterrupt: After Ctrl-C, when the workers have stopped.
    """
    if not plans:
        return {}
    for left in (folder / CANCEL_FILE, *folder.glob(f'*{AT_SUFFIX}')):  # by an earlier call
        left.unlink(missing_ok=True)
    running: Future[PipelineResult] = Future()
    with _quiet_beam(running):
        threading.Thread(target=_run, args=(plans, folder, workers, running), daemon=True).start()
        try:
            _follow(running, plans, folder, progress)
            if running.exception():
                time.sleep(1)  # the end of a worker comes in several errors; the last one is its process
        except BaseException:
            (folder / CANCEL_FILE).touch()
            concurrent.futures.wait([running], timeout=60)
            raise
    try:
        result = running.result()
    except Exception as error:
        (folder / CANCEL_FILE).touch()
        if paths := left_by_the_dead(folder):
            raise DDSPError(
                f'a worker died while it analysed {", ".join(map(shown, paths))}: it was killed, perhaps for '
                'want of memory. Run the same command again, with fewer workers or without this recording.'
            ) from error
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
            # The runner itself would deal the shards out by number.
            groups = spread(plans, min(workers, len(plans)), lambda plan: plan.key)
            build(pipeline, groups, folder)
        running.set_result(pipeline.result)
    except BaseException as error:
        if not running.done():
            running.set_exception(error)


def _processes(folder: pathlib.Path) -> SubprocessSDKEnvironment:
    """Workers as processes, whose log goes into a file and which leave Ctrl-C to this process."""
    command = f'{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER)}'
    log = shlex.quote(str(folder / 'workers.log'))
    return SubprocessSDKEnvironment(command_string=f"trap '' INT; {_ONE_THREAD} exec {command} >>{log} 2>&1")


def _follow(
    running: Future[PipelineResult], plans: list[ShardPlan], folder: pathlib.Path, progress: Progress | None
) -> None:
    """Waits for the end; how far it is shows in the size of the files, finished or not."""
    total, before = sum(plan.seconds for plan in plans), _size(folder)
    options = plans[0].options
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
def _quiet_beam(running: Future[PipelineResult]) -> Iterator[None]:
    """Keeps the runner's own log off the terminal; errors are raised anyway.

    That a worker died shows only in a thread of the runner, which then waits for the worker forever.
    """

    def tell(args: threading.ExceptHookArgs) -> None:
        if not running.done():
            running.set_exception(args.exc_value or RuntimeError(str(args.exc_type)))

    hook, threading.excepthook = threading.excepthook, tell
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.disable(level)
