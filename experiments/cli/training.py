"""`ddsp train`, `ddsp presets`, `ddsp evaluate`, `ddsp sweep` and `ddsp demo`."""
# ruff: noqa: B008 - typer's options are defaults

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.options import (
    DATASET,
    EXPERIMENT,
    JSON,
    MODEL,
    SEED,
    argument,
    choice,
    f0_choice,
    option,
    presets_of_package,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from experiments.sweeps.result import SweepResult
    from experiments.sweeps.spec import SweepSpec

PANEL = 'Training'
_POLL_SECS = 2.0


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp train data/violin --preset laptop --steps 2000 --gin-param '
    '"Trainer.learning_rate = 0.001"[/bold]',
)
def train(
    dataset: str = DATASET,
    preset: str = option(
        '',
        "Packaged configuration; 'ddsp presets' lists them.",
        shown='laptop; none with --gin-file',
        **choice(*presets_of_package()),
    ),
    gin_file: list[str] | None = option(
        None,
        "Gin file, your own or packaged ('models/solo_instrument.gin'); may be repeated.",
        '--gin-file',
        metavar='<file>',
    ),
    gin_param: list[str] | None = option(
        None,
        "Binding such as 'learning_rate = 0.001'; may be repeated.",
        '--gin-param',
        metavar='<binding>',
    ),
    steps: int | None = option(
        None,
        'Training steps in total, including those of an interrupted training.',
        min=1,
        shown="the configuration's; laptop: 1600",
    ),
    batch_size: int | None = option(
        None, 'Examples per step.', min=1, shown="the configuration's; laptop: 4"
    ),
    seed: int = option(0, 'Random seed of weights, order of examples and noise.', **SEED),
    save_dir: str = option(
        '',
        'Training folder; a training that is there is resumed.',
        metavar='<folder>',
        shown='runs/DATASET-PRESET',
    ),
    experiment: str = EXPERIMENT,
    run_name: str = option('', 'Name of the run in MLflow.', shown='name of the folder'),
    evaluate: bool = option(True, 'Evaluate on held-out examples at the end.'),
    register: str = option('', 'Name under which the model is registered in MLflow.'),
    strategy: str = option(
        'auto',
        'Devices; auto: all GPUs of this machine, or the machines in TF_CONFIG.',
        **choice('auto', 'default', 'mirrored', 'multi_worker', 'tpu'),
    ),
    restart: bool = option(False, 'Move aside what is in the training folder and start over.', '--restart'),
    as_json: bool = JSON,
) -> int:
    """Train a model on a dataset, tracked in MLflow. Run the same command again to resume."""
    from experiments import quiet
    from experiments.run.training import check_backend, train_run
    from experiments.tracking import registry, store

    check_backend()
    store.check_experiment(experiment)
    if register:
        registry.check_model_name(register, '--register')
    quiet.load_keras()

    buffer = _buffer_when_server_is_down(as_json)
    with output.progress('Training', enabled=not as_json) as progress:
        result = train_run(
            dataset, preset=preset, gin_files=gin_file or [], gin_params=gin_param or [],
            save_dir=save_dir or None, experiment=experiment, run_name=run_name or None, num_steps=steps,
            batch_size=batch_size, seed=seed, evaluate=evaluate, register_as=register or None,
            progress=progress, buffer=buffer, strategy=strategy, restart=restart,
            warn=lambda warning: output.say(f'Warning: {warning}'),
        )  # fmt: skip
    if as_json:
        output.print_json(dataclasses.asdict(result))
        return 0
    _print_metrics(result.metrics)
    rows = [('run', result.run_id), ('folder', result.save_dir), ('model', result.bundle)]
    rows += [('listen', result.listen_page)] if result.listen_page else []
    output.print_table('', ('', ''), rows, header=False)
    if result.advice:
        print(result.advice)
    print(
        f'Next: ddsp ui --run {result.run_id[:8]}'
        if result.run_id
        else f'Next: ddsp runs sync {result.save_dir}'
    )
    return 0


@app.command(rich_help_panel=PANEL, epilog='Example: [bold]ddsp presets --json[/bold]')
def presets(as_json: bool = JSON) -> int:
    """List the packaged configurations for --preset."""
    found = presets_of_package()
    if as_json:
        output.print_json(found)
    else:
        output.print_table('', ('', ''), found.items(), header=False)
    return 0


def _buffer_when_server_is_down(as_json: bool) -> bool:
    """Whether to train although the tracking server is down: asked on a terminal, yes where nobody answers.

    Raises:
      ServerDownError: The answer was to stop.
    """
    from experiments.tracking import store

    uri = store.tracking_uri()
    problem = store.server_problem(uri) if uri.startswith('http') else ''
    if not problem:
        return False
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        output.say(
            f'Warning: the tracking server {uri} {problem}. The run is kept in the training folder and '
            'recorded when the server is back.'
        )
        return True
    output.say(f'The tracking server {uri} {problem}.')
    answer = ''
    while answer not in ('wait', 'later', 'quit'):
        question = 'Wait for it, train and record the run later, or quit? (wait/later/quit)'
        answer = typer.prompt(question, default='later', err=True).strip().lower()
    if answer == 'quit':
        raise store.server_error(uri, problem)
    if answer == 'wait':
        with output.waiting(f'Waiting for {uri} (Ctrl-C stops)'):
            while store.server_problem(uri):
                time.sleep(_POLL_SECS)
        return False
    return True


def _print_metrics(metrics: Mapping[str, float]) -> None:
    """Metrics that people look at first, as a table."""
    from experiments.reports.page import format_number

    shown = ('losses/', 'eval/', 'speed/', 'held_out/')
    rows = [(name, format_number(value)) for name, value in sorted(metrics.items()) if name.startswith(shown)]
    output.print_table('', ('Metric', 'Value'), rows, numeric=('Value',))


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp evaluate models:/violin@champion data/violin --split test[/bold]',
)
def evaluate(
    model: str = argument('MODEL', MODEL),
    dataset: str = DATASET,
    split: str = option('test', 'Split of the dataset.'),
    f0: str = option('auto', "Pitch estimator for the generated audio; auto: the dataset's.", **f0_choice()),
    limit: int | None = option(None, 'Evaluate only this many examples.', min=1, shown='all'),
    to: pathlib.Path | None = option(
        None, 'Folder for WAV pairs, pictures and listen.html.', '--output', shown='nothing is written'
    ),
    as_json: bool = JSON,
) -> int:
    """Evaluate a model on held-out examples: spectral loss, loudness, f0 of the generated audio."""
    from experiments import quiet

    quiet.load_keras()
    from experiments.run.evaluation import evaluate_model

    with output.progress('Evaluating', enabled=not as_json) as progress:
        result = evaluate_model(
            model, dataset, split, estimator=f0, limit=limit, folder=to, progress=progress
        )
    if as_json:
        output.print_json({'metrics': result.metrics, 'examples': result.rows})
        return 0
    _print_metrics(result.metrics)
    if result.listen_page:
        print(f'Listen: {result.listen_page}')
    return 0


@app.command(
    rich_help_panel=PANEL, epilog='Example: [bold]ddsp sweep sweep.yaml data/violin --workers 2[/bold]'
)
def sweep(
    spec: pathlib.Path = argument('SPEC', 'YAML or gin file: docs/sweeps.md.'),
    dataset: str = DATASET,
    workers: int = option(1, 'Worker processes on this machine.', min=1),
    trials: int | None = option(None, 'Number of trials, overriding the file.', min=1, max=10_000),
    save_dir: str = option('', 'Folder of the sweep.', metavar='<folder>', shown='sweeps/NAME'),
    storage: str = option(
        '', 'Database of the study (sqlite:///... or postgresql://...).', envvar='DDSP_SWEEP_STORAGE'
    ),
    experiment: str = EXPERIMENT,
    as_json: bool = JSON,
) -> int:
    """Search a space of parameters. Run the same command again to add a worker or to resume."""
    from experiments import quiet
    from experiments.run.training import check_backend
    from experiments.sweeps.result import SweepPlace
    from experiments.sweeps.spec import load_spec

    check_backend()
    loaded = load_spec(spec)
    if trials is not None:
        loaded = dataclasses.replace(loaded, trials=trials)
    place = SweepPlace.at(loaded, spec, dataset, folder=save_dir, storage=storage, experiment=experiment)
    quiet.load_keras()
    from experiments.sweeps.runner import run_sweep

    with output.progress('Trials', enabled=not as_json) as progress:
        result = run_sweep(loaded, place, workers=workers, progress=progress)
    if as_json:
        output.print_json(dataclasses.asdict(result))
    else:
        _print_sweep(loaded, result, place.experiment)
    return 0 if result.done else 1


def _print_sweep(spec: SweepSpec, result: SweepResult, experiment: str) -> None:
    """The sweep's outcome and what to do with it."""
    from experiments.tracking.runs import of_sweep

    rows: list[tuple[str, Any]] = [
        (
            'trials',
            f'{result.finished} finished, {result.pruned} pruned, {result.failed} failed of {result.total}',
        )
    ]
    if result.best_value is not None:
        rows.append((f'best {spec.objective}', f'{result.best_value:.4g}'))
        rows += [(name, value) for name, value in result.best_params.items()]
        rows.append(('run', result.best_run_id))
    output.print_table('', ('', ''), rows, header=False)
    if result.command:
        print(f'Again: {result.command}')
    print(f'Next: ddsp runs compare --experiment {experiment} --filter "{of_sweep(spec.name)}"')


@app.command(rich_help_panel='This machine', epilog='Example: [bold]ddsp demo --audio recordings/[/bold]')
def demo(
    audio: str | None = option(None, 'Recordings to train on.', shown='a synthetic corpus'),
    save_dir: pathlib.Path | None = option(
        None, 'Folder for all files of the demo.', metavar='<folder>', shown='ddsp-demo, or ddsp-demo-AUDIO'
    ),
    seconds: float = option(180.0, 'Length of the synthetic corpus, seconds.', min=10),
    seed: int = option(0, 'Random seed of corpus, weights and order.', **SEED),
    steps: int | None = option(None, 'Training steps.', min=1, shown='1600'),
    as_json: bool = JSON,
) -> int:
    """Run all of it at once: dataset, training, evaluation, sound."""
    from experiments import quiet
    from experiments.run.training import check_backend

    check_backend()
    quiet.load_keras()
    from experiments.demo.demo import DemoSettings, run_demo

    result = run_demo(
        DemoSettings(audio=audio, seconds=seconds, seed=seed, steps=steps),
        save_dir,
        stage=lambda title: output.progress(title, enabled=not as_json),
    )
    if as_json:
        output.print_json(dataclasses.asdict(result))
        return 0
    output.print_table('Held-out recordings', ('', ''), result.figures(), numeric=('',), header=False)
    output.print_table('\nCost', ('stage', 'seconds', 'CPU seconds', 'peak MB'), result.cost_rows())
    output.print_table('\nFiles', ('', ''), result.files(), header=False)
    print(f'\nMLflow: ddsp ui --run {result.run_id[:8]}')
    return 0
