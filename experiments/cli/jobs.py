"""`ddsp launch`, and `ddsp jobs` with its verbs."""
# ruff: noqa: B008 - typer's options are defaults

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from experiments import masking
from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.grammar import App
from experiments.cli.options import JSON, argument, choice, option
from experiments.launch import records
from experiments.launch.executor import NAMES, Executor, State, check_options, get_executor
from experiments.launch.job import Job, LaunchError
from experiments.tracking.run_tags import JOB_TAG, JOB_VARIABLE

if TYPE_CHECKING:
    from experiments.launch.records import Record

PANEL = 'Many machines'
_SECRET = re.compile(r'PASS|SECRET|TOKEN|CREDENTIAL|API_?KEY', re.IGNORECASE)
_NAME = argument('NAME', "Name of the job; 'ddsp jobs list' shows them.")

jobs = App(no_args_is_help=True, rich_markup_mode='rich')
app.add_typer(
    jobs, name='jobs', rich_help_panel=PANEL, help='List, show, follow and cancel jobs that were launched.',
    epilog='Example: [bold]ddsp jobs follow violin[/bold]',
)  # fmt: skip


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp launch slurm --name violin --replicas 2 --gpus 1 --set partition=gpu -- '
    'train /shared/data/violin --save-dir /shared/runs/violin[/bold]',
)
def launch(
    executor: str = typer.Argument(..., help='Engine that runs the job.', **choice(*NAMES)),
    command: list[str] = argument('-- COMMAND...', 'train, sweep, evaluate or prepare, with its options.'),
    name: str = option('', 'Name of the job.', shown='the command and a number'),
    replicas: int | None = option(None, 'Processes: workers of a training, or of a sweep.', min=1, shown='1'),
    image: str | None = option(None, 'Container image.', shown='what is installed here'),
    cpus: int | None = option(None, 'Cores of a process.', min=1, shown='4'),
    memory: int | None = option(None, 'Memory of a process in GB.', min=1, shown='8'),
    gpus: int | None = option(None, 'Accelerators of a process.', min=0, shown='0'),
    accelerator: str | None = option(None, "Their kind, in the engine's words.", shown='any'),
    time_limit: int | None = option(None, 'Minutes until the engine ends the job.', min=1, shown='its own'),
    env: list[str] | None = option(None, 'Variable of the environment; may be repeated.', metavar='<N=V>'),
    secret: list[str] | None = option(
        None, 'Name of a variable whose value the engine keeps; may be repeated.', metavar='<name>'
    ),
    retries: int | None = option(None, 'Times that what failed starts again.', min=0, shown='3'),
    spot: bool | None = option(None, 'Machines that may be taken away.', '--spot/--no-spot', shown='no-spot'),
    settings: list[str] | None = option(
        None, 'Setting of the engine; may be repeated.', '--set', metavar='<key=value>'
    ),
    job: pathlib.Path | None = option(None, 'YAML file with the same settings; options win.', '--job'),
    dry_run: bool = option(False, 'Show what would be submitted, and submit nothing.', '--dry-run'),
    follow: bool = option(True, 'Show the logs until the job ends.', '--follow/--detach'),
    as_json: bool = JSON,
) -> int:
    """Run a command on other machines: Slurm, Kubernetes, Vertex AI, SkyPilot; or here, in the background."""
    given = {
        'replicas': replicas, 'image': image, 'cpus': cpus, 'memory_gb': memory, 'gpus': gpus,
        'accelerator': accelerator, 'time_limit_minutes': time_limit, 'retries': retries, 'spot': spot,
        'env': _pairs(env, '--env'), 'secrets': tuple(secret or ()), 'options': _pairs(settings, '--set'),
    }  # fmt: skip
    described = _read_description(job) if job else {}
    described |= {key: value for key, value in given.items() if value not in (None, {}, ())}
    described['name'] = name or described.get('name') or _free_name(command[0])
    made = _make_job(described, command)
    engine = get_executor(executor)
    check_options(engine, made)
    if dry_run:
        print(masking.clean(engine.describe(made)), end='')
        return 0
    return _submit(engine, made, follow, as_json)


def _submit(engine: Executor, job: Job, follow: bool, as_json: bool) -> int:
    """Submits a job and follows it."""
    engine.describe(job)  # says what is wrong before there is a record
    record = records.begin(engine.name, job)
    try:
        record.handle = engine.submit(job)
    except BaseException:
        record.remove()
        raise
    record.write()
    if as_json:
        output.print_json({**dataclasses.asdict(record), 'address': engine.address(record.handle)})
        return 0
    output.say(f'Job {job.name} was submitted. ' + (engine.address(record.handle) or ''))
    return _follow(engine, record) if follow else _say_how(record)


@jobs.command('list', epilog='Example: [bold]ddsp jobs list[/bold]')
def list_(as_json: bool = JSON) -> int:
    """List jobs, newest first."""
    import datetime

    found = records.every()
    states = [_state(get_executor(record.executor), record).value for record in found]
    if as_json:
        rows = [{**dataclasses.asdict(r), 'state': s} for r, s in zip(found, states, strict=True)]
        output.print_json(rows)
        return 0
    table = []
    for record, state in zip(found, states, strict=True):
        when = datetime.datetime.fromtimestamp(record.submitted).strftime('%Y-%m-%d %H:%M')
        table.append((record.name, record.executor, state, when, record.replicas, ' '.join(record.command)))
    output.print_table('', ('Job', 'Executor', 'State', 'Submitted', 'Processes', 'Command'), table)
    return 0


@jobs.command(epilog='Example: [bold]ddsp jobs show violin[/bold]')
def show(name: str = _NAME, as_json: bool = JSON) -> int:
    """Show a job, and the runs that it has recorded."""
    record = records.read(name)
    engine = get_executor(record.executor)
    shown = {**dataclasses.asdict(record), 'state': _state(engine, record).value, 'runs': _runs(name)}
    shown['address'] = engine.address(record.handle) if record.handle else ''
    if as_json:
        output.print_json(shown)
        return 0
    shown['command'] = ' '.join(record.command)
    shown['runs'] = '\n'.join(shown['runs'])
    rows = [(key, value) for key, value in shown.items() if value not in ('', False)]
    output.print_table('', ('', ''), rows, header=False)
    return 0


@jobs.command(epilog='Example: [bold]ddsp jobs logs violin[/bold]')
def logs(name: str = _NAME) -> int:
    """Print the logs of a job as far as they go."""
    engine, record = _find(name)
    for line in engine.logs(record.handle):
        print(masking.clean(line))
    return 0


@jobs.command('follow', epilog='Example: [bold]ddsp jobs follow violin[/bold]')
def follow_(name: str = _NAME) -> int:
    """Print the logs of a job until it ends; Ctrl-C leaves it running."""
    return _follow(*_find(name))


@jobs.command(epilog='Example: [bold]ddsp jobs cancel violin[/bold]')
def cancel(name: str = _NAME) -> int:
    """End a job; a training saves its state, and the same command goes on from there."""
    engine, record = _find(name)
    if _state(engine, record).ended:
        output.say(f'Job {name} has ended already.')
        return 0
    engine.cancel(record.handle)
    record.cancelled = True
    record.write()
    output.say(f'Job {name} is cancelled.')
    return 0


def _find(name: str) -> tuple[Executor, Record]:
    """The engine and the record of a job that was submitted."""
    record = records.read(name)
    if not record.handle:
        raise LaunchError(
            f'it is not known whether {name!r} was submitted: the command ended in between. Look at '
            f'{record.executor} itself, and remove {records.job_folder(name)}'
        )
    return get_executor(record.executor), record


def _state(engine: Executor, record: Record) -> State:
    """Where a job stands; an engine that removes what is cancelled does not know it any more."""
    found = engine.state(record.handle) if record.handle else State.UNKNOWN
    return State.CANCELLED if found is State.UNKNOWN and record.cancelled else found


def _follow(engine: Executor, record: Record) -> int:
    """Prints logs until the end; the exit status is that of the job."""
    try:
        for line in engine.logs(record.handle, follow=True):
            print(masking.clean(line), flush=True)
    except KeyboardInterrupt:
        _say_how(record)
        raise
    state = _state(engine, record)
    output.say(f'Job {record.name}: {state.value}')
    for run in _runs(record.name):
        print(run)
    return 0 if state is State.DONE else 1


def _say_how(record: Record) -> int:
    """What to do with a job that runs."""
    output.say(f'It goes on by itself: ddsp jobs follow {record.name}, ddsp jobs cancel {record.name}')
    return 0


def _runs(name: str) -> list[str]:
    """Addresses of the runs of a job, or their ids where there is no server; [] where nobody can be asked."""
    from ddsp.errors import DDSPError
    from experiments.tracking import runs, store, ui

    if store.is_new():
        return []
    try:
        found = runs.list_runs(store.client(), condition=store.equals(f'tags.`{JOB_TAG}`', name))
    except DDSPError as error:
        output.say(f'The runs of the job cannot be looked up: {error}')
        return []
    uri = store.tracking_uri()
    if not uri.startswith('http'):
        return [f'{run.info.run_id} {run.info.run_name} (ddsp ui)' for run in found]
    return [ui.run_address(uri, (run.info.experiment_id, run.info.run_id)) for run in found]


def _make_job(described: Mapping[str, Any], command: list[str]) -> Job:
    """A job whose command was checked as the machine that runs it will check it."""
    words = tuple(command)
    job = Job(command=words, **described)
    parsed = parse(words)
    if words[0] in ('train', 'sweep') and not parsed.get('save_dir'):
        raise typer.BadParameter(
            f'{words[0]} needs --save-dir: the folder in which another machine goes on.', param_hint='COMMAND'
        )
    if job.trains_together and parsed.get('strategy') == 'auto':
        job = dataclasses.replace(job, command=(*words, '--strategy', 'multi_worker'))
    for key, value in job.env.items():
        if _SECRET.search(key) or masking.shown(value) != value:
            raise typer.BadParameter(
                f'{key} looks like a secret; it would be written down. Use --secret {key}.',
                param_hint='--env',
            )
    return dataclasses.replace(job, env={**job.env, JOB_VARIABLE: job.name})


def parse(words: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a command, by its own parser: a mistake is told now, not on another machine."""
    group: Any = typer.main.get_command(app)
    with group.make_context('ddsp', list(words), resilient_parsing=True) as context:
        name, command, rest = group.resolve_command(context, list(words))
        with command.make_context(name, rest, parent=context) as parsed:
            found: dict[str, Any] = parsed.params
            return found


def _pairs(given: list[str] | None, what: str) -> dict[str, str]:
    """`NAME=VALUE` as a dictionary."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition('=')
        if not equals or not name:
            raise typer.BadParameter(f'{text!r} is not NAME=VALUE.', param_hint=what)
        found[name] = value
    return found


def _read_description(path: pathlib.Path) -> dict[str, Any]:
    """Settings of a job from a YAML file."""
    import difflib

    from ddsp.errors import ConfigError, require

    yaml = require('yaml', 'to read the description of a job')
    try:
        found = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f'{path} is not YAML: {error}') from None
    known = [field.name for field in dataclasses.fields(Job) if field.name != 'command']
    if not isinstance(found, dict):
        raise ConfigError(f'{path} must hold settings such as "replicas: 2"')
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f' Did you mean {near[0]!r}?' if near else ''
            raise ConfigError(f'{path}: there is no setting {key!r}; there are {", ".join(known)}.{hint}')
    if 'secrets' in found:
        found['secrets'] = tuple(found['secrets'])
    return found


def _free_name(command: str) -> str:
    """The command and the first number that no job has."""
    taken = {path.name for path in records.jobs_folder().glob(f'{command}-*')}
    return next(name for number in range(1, 10**6) if (name := f'{command}-{number}') not in taken)
