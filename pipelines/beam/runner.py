"""Running a graph on this machine: in this process, or with workers as processes of their own."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import pathlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

from ddsp.errors import DDSPError
from ddsp.io.decoding import shown
from pipelines.beam.graph import build
from pipelines.beam.request import Request
from pipelines.beam.sdk import FnApiRunner, PipelineOptions, SubprocessSDKEnvironment, beam
from pipelines.shards import watch

_POLL_SECS = 0.2
# Beam's own worker, after our way of importing Beam.
_WORKER = (
    'import sys, pipelines.beam.sdk; from apache_beam.runners.worker import sdk_worker_main; '
    'sdk_worker_main.main(sys.argv)'
)
_ONE_THREAD = 'OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1'


def run_here(request: Request, follow: Callable[[Mapping[str, float]], None]) -> None:
    """Runs a preparation on this machine, with `request.lanes` workers; one works in this process.

    `follow` is called from time to time with what the workers have counted.

    Raises:
      DDSPError: A worker died, or something went wrong that has no place in the outcome of the job.
      KeyboardInterrupt: After Ctrl-C, when the workers have stopped.
    """
    folder = pathlib.Path(request.watch)
    folder.mkdir(parents=True, exist_ok=True)
    running: Future[None] = Future()
    with _quiet_beam(running):
        threading.Thread(target=_run, args=(request, folder, running), daemon=True).start()
        try:
            while not concurrent.futures.wait([running], _POLL_SECS).done:
                follow(watch.counts(folder))
            if running.exception():
                time.sleep(1)  # the end of a worker comes in several errors; the last one is its process
        except BaseException:
            watch.cancel(folder)
            concurrent.futures.wait([running], timeout=60)
            raise
    try:
        running.result()
    except Exception as error:
        watch.cancel(folder)
        if paths := watch.left_by_the_dead(folder):
            raise DDSPError(
                f'a worker died while it analysed {", ".join(map(shown, paths))}: it was killed, perhaps for '
                'want of memory. Run the same command again, with fewer workers or without this recording.'
            ) from error
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise DDSPError(f'the pipeline failed: {lines[-1] if lines else error!r}') from error


def _run(request: Request, folder: pathlib.Path, running: Future[None]) -> None:
    workers = request.lanes or 1
    try:
        options = PipelineOptions(flags=[], direct_num_workers=workers, direct_running_mode='in_memory')
        runner = FnApiRunner(default_environment=_processes(folder) if workers > 1 else None)
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            build(pipeline, request)
        running.set_result(None)
    except BaseException as error:
        if not running.done():
            running.set_exception(error)


def _processes(folder: pathlib.Path) -> SubprocessSDKEnvironment:
    """Workers as processes, whose log goes into a file and which leave Ctrl-C to this process."""
    command = f'{shlex.quote(sys.executable)} -c {shlex.quote(_WORKER)}'
    log = shlex.quote(str(folder / 'workers.log'))
    return SubprocessSDKEnvironment(command_string=f"trap '' INT; {_ONE_THREAD} exec {command} >>{log} 2>&1")


@contextlib.contextmanager
def _quiet_beam(running: Future[None]) -> Iterator[None]:
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
