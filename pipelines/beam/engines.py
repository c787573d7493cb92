"""Running the graph of a preparation on an engine outside this process, and following it there."""

from __future__ import annotations

import difflib
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ddsp.errors import ConfigError, DDSPError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

RUNNERS = ('local', 'portable', 'flink', 'spark', 'dataflow')
NAMESPACE = 'ddsp.prepare'
_BEAM_RUNNERS = {
    'portable': 'PortableRunner', 'flink': 'FlinkRunner', 'spark': 'SparkRunner',
    'dataflow': 'DataflowRunner',
}  # fmt: skip
_POLL_SECS = {'dataflow': 5.0}  # the service limits requests per minute
_DEFAULT_POLL_SECS = 1.0
# Groups of Beam's options that only some engines read.
_READ_BY = {
    'DirectOptions': ('local',),
    'FlinkRunnerOptions': ('flink',),
    'FlinkRetryOptions': ('flink',),
    'SparkRunnerOptions': ('spark',),
    'JobServerOptions': ('flink', 'spark'),
    'PortableOptions': ('portable', 'flink', 'spark'),
}
# Beam's options that this project sets itself, with the reason or the way to set them.
_OURS = {
    'runner': 'the engine is chosen by the option --runner of the command, before the double dash',
    'job_name': 'a job is named after its dataset, so that the same command finds it again',
    'dry_run': '--dry-run of the command shows what would be submitted',
    'streaming': 'a preparation is a batch job',
    'update': 'a preparation is a batch job, which the service does not update',
    'save_main_session': 'the workers import the installed package',
    'template_location': 'infra/dataflow has a flex template',
}


def check(
    runner: str, beam_options: Sequence[str], *, root: str = '', sources: Sequence[str] = ()
) -> PipelineOptions:
    """Beam's options for an engine: those given, and what the engine needs beside them.

    Args:
      runner: One of `RUNNERS`.
      beam_options: Such as `['--region=europe-west4']`.
      root, sources: Where datasets and recordings are, if the engine's workers are to see them.

    Raises:
      ConfigError: An option is misspelt, has a wrong value, belongs to another engine or contradicts what
        this project sets itself; or something that the engine needs is missing.
    """
    if runner not in RUNNERS:
        near = difflib.get_close_matches(runner, RUNNERS, 1)
        hint = f' Did you mean {near[0]!r}?' if near else ''
        raise ConfigError(f'runner is {runner!r}; it must be one of {", ".join(RUNNERS)}.{hint}')
    if runner == 'local' and beam_options:
        raise ConfigError(
            f'the local runner takes no Beam options, and {beam_options[0]} was given. --workers sets the '
            f'number of processes; Beam options go with --runner {", ".join(RUNNERS[1:])}.'
        )
    from pipelines.beam import dataflow, portable  # each adds options of its own to Beam's
    from pipelines.beam.sdk import PipelineOptions

    flags = list(beam_options)
    _check_flags(runner, flags)
    if runner in ('portable', 'flink', 'spark'):
        flags += portable.flags(runner, beam_options)
    if runner != 'local':
        flags.append(f'--runner={_BEAM_RUNNERS[runner]}')
    options = PipelineOptions(flags)
    if runner == 'dataflow':
        dataflow.complete(options)
        if root:
            dataflow.check_places(root, sources)
    return options


def run(
    runner: str,
    beam_options: Sequence[str],
    construct: Callable[[beam.Pipeline], None],
    *,
    label: str,
    follow: Callable[[dict[str, float]], None] = lambda counters: None,
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, float]:
    """Runs a graph on another engine and waits for its end.

    A Dataflow job of the same name that is still running is followed; no second one is started.

    Args:
      runner: One of `RUNNERS` but `'local'`.
      beam_options: As for `check`.
      construct: Adds the graph to a pipeline.
      label: Name of the job, such as `'violin-prepare-3f2a1c'`; the same for the same request.
      follow: Called now and then with the counters of the namespace ddsp.prepare so far.
      tell: Called with what the user should know at once, such as the address of the job.

    Returns:
      The final counters.

    Raises:
      DDSPError: What failed and how to go on.
      KeyboardInterrupt: After Ctrl-C, when the job was told to stop.
    """
    from pipelines.beam import portable

    options = _named(check(runner, beam_options), label)
    attempt = functools.partial(_attempt, runner, options, construct, label, follow, tell)
    return attempt() if runner == 'dataflow' else portable.run_again(attempt, tell)


def _attempt(
    runner: str,
    options: PipelineOptions,
    construct: Callable[[beam.Pipeline], None],
    label: str,
    follow: Callable[[dict[str, float]], None],
    tell: Callable[[str], None],
) -> dict[str, float]:
    from pipelines.beam import dataflow, jobs

    with jobs.quiet():
        try:
            if runner == 'dataflow':
                result = dataflow.submit(options, construct, tell)
            else:
                result = jobs.assemble(options, construct).run()
        except DDSPError:
            raise
        except KeyboardInterrupt as stop:
            about = f'interrupted while {jobs.job_name(label)} was being submitted'
            raise type(stop)(f'{about}: should it have started, the same command finds it') from None
        except Exception as error:
            _explain(runner, error, options)
        try:
            return _follow(result, follow, _POLL_SECS.get(runner, _DEFAULT_POLL_SECS))
        except KeyboardInterrupt as stop:
            raise type(stop)(_cancel(runner, result, label, options)) from None
        except DDSPError:
            raise
        except Exception as error:
            _explain(runner, error, options, result)


def describe(
    runner: str, beam_options: Sequence[str], construct: Callable[[beam.Pipeline], None], *, label: str
) -> dict[str, Any]:
    """What `run` would submit: name of the job, steps, options that differ from Beam's defaults.

    For Dataflow also the image, the workers and their network, as the service would get them.
    """

    from pipelines.beam import dataflow, jobs

    options = _named(check(runner, beam_options), label)
    with jobs.quiet():
        found: dict[str, Any] = {'runner': runner, 'job': jobs.job_name(label)}
        if runner == 'dataflow':
            return found | dataflow.describe(options, construct)
        proto = jobs.assemble(options, construct).to_runner_api()
        return found | {'steps': jobs.steps_of(proto), 'options': options.get_all_options(drop_default=True)}


def _named(options: PipelineOptions, label: str) -> PipelineOptions:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    from pipelines.beam import jobs

    options.view_as(GoogleCloudOptions).job_name = jobs.job_name(label)  # the portable runners read it, too
    return options


def _check_flags(runner: str, flags: list[str]) -> None:
    """Raises where Beam would only warn."""
    from apache_beam.options import pipeline_options

    class Parser(pipeline_options._BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise ConfigError(f'Beam does not accept the options: {message}.')

    parser = Parser(allow_abbrev=False, add_help=False)
    group_of: dict[str, str] = {}
    known = parser._option_string_actions
    for group in dict.fromkeys(pipeline_options.PipelineOptions.__subclasses__()):
        before = set(known)
        group._add_argparse_args(parser)
        group_of |= dict.fromkeys(set(known) - before, group.__name__)
    for word in parser.parse_known_args(flags)[1]:
        name = word.partition('=')[0]
        near = difflib.get_close_matches(name, known, 1)
        hint = f' Did you mean {near[0]}?' if near else ' Options are written --name=value.'
        raise ConfigError(f'Beam has no option {word!r}.{hint}')
    for name in (flag.partition('=')[0] for flag in flags if flag.startswith('--')):
        readers = _READ_BY.get(group_of[name], RUNNERS) if name in group_of else RUNNERS
        if runner not in readers:
            raise ConfigError(f'{name} is an option of --runner {" and ".join(readers)}, not of {runner}.')
        if known[name].dest in _OURS:
            raise ConfigError(f'{name} is not to be given: {_OURS[known[name].dest]}.')


def _follow(
    result: PipelineResult, follow: Callable[[dict[str, float]], None], secs: float
) -> dict[str, float]:
    """Waits for the end of a job; returns its counters."""
    from apache_beam.runners.runner import PipelineState

    counters: dict[str, float] = {}
    while not PipelineState.is_terminal(state := result.state):
        counters = _counters(result) or counters
        follow(counters)
        time.sleep(secs)
    if state != PipelineState.DONE:
        raise _Ended(state)
    counters = _counters(result) or counters
    follow(counters)
    if hasattr(result, '_cleanup'):
        result._cleanup(on_exit=False)  # channels and job server of the portable runners
    return counters


class _Ended(Exception):
    """A job has ended otherwise than well; the text is its state."""


def _counters(result: PipelineResult) -> dict[str, float]:
    """The counters so far; none where the engine does not answer: they are only shown."""
    from apache_beam.metrics import MetricsFilter

    if hasattr(result, '_metrics'):
        result._metrics = None  # a portable result would give those of the first call again
    try:
        rows = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))['counters']
    except Exception:
        return {}
    counters: dict[str, float] = {}
    for row in rows:  # one for each step that counts
        counters[row.key.metric.name] = counters.get(row.key.metric.name, 0) + (row.result or 0)
    return counters


def _cancel(runner: str, result: PipelineResult, label: str, options: PipelineOptions) -> str:
    """Tells a job to stop; returns the message for the user."""
    from pipelines.beam import dataflow, jobs

    try:
        result.cancel()
    except Exception as error:
        how = f': {dataflow.cancel_command(result, options)}' if runner == 'dataflow' else ''
        return f'{jobs.job_name(label)} could not be cancelled ({jobs.cause(str(error))}) and goes on{how}'
    return f'{jobs.job_name(label)} was cancelled. {jobs.AGAIN.rstrip(".")}'


def _explain(
    runner: str, error: Exception, options: PipelineOptions, result: PipelineResult | None = None
) -> NoReturn:
    """Raises one sentence for whatever an engine raised."""
    from pipelines.beam import dataflow, jobs

    state = str(error) if isinstance(error, _Ended) else ''
    if runner == 'dataflow':
        raise dataflow.explain(error, options, result, state) from error
    from apache_beam.options.pipeline_options import PortableOptions

    if state == 'CANCELLED':
        raise DDSPError(f'the job was cancelled on {runner}. {jobs.AGAIN}') from error
    if state and result is not None:
        try:
            result.wait_until_finish()
        except Exception as told:
            error = told
    text = str(error)
    if 'UNAVAILABLE' in text or type(error).__name__ == 'FutureTimeoutError':
        where = options.view_as(PortableOptions).job_endpoint
        raise DDSPError(
            f'no job service answers at {where or "the address of the engine"}. Start it, or correct '
            '--job_endpoint, and run the same command again.'
        ) from error
    raise DDSPError(f'the pipeline failed on {runner}: {jobs.cause(text)}. {jobs.AGAIN}') from error
