"""`ddsp transfer`, `ddsp export` and `ddsp promote`: what a trained model is for."""
# ruff: noqa: B008 - typer's options are defaults

from __future__ import annotations

import math
import pathlib

import typer

from ddsp.io.files import check_output
from experiments import metrics
from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.options import FILTER, JSON, MODEL, argument, choice, option

PANEL = 'Runs and models'
_MOST = 60.0  # semitones and decibels of a shift, as `ddsp.inference.TransferSettings` has it


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp transfer flute.wav --model models:/violin@champion --output violin.wav '
    '--pitch-shift 12[/bold]',
)
def transfer(
    audio: pathlib.Path = argument('INPUT', 'Recording to play on the model.'),
    model: str = option(..., MODEL),
    to: pathlib.Path = option(..., 'WAV to write.', '--output'),
    pitch_shift: str = option(
        'auto',
        "Semitones; 'auto' moves what lies outside the model's range into it, by as few octaves as possible.",
        metavar='<auto or -60 to 60>',
    ),
    loudness_shift: float = option(0.0, 'Loudness shift in dB.', metavar='<-60 to 60>'),
    match_loudness: bool = option(
        True,
        "Play at the level of the model's recordings, or at that of the input.",
        '--match-loudness/--keep-loudness',
    ),
    reverb: bool = option(True, "Keep the model's reverb, or leave it out."),
    as_json: bool = JSON,
) -> int:
    """Play a recording on a trained instrument (timbre transfer)."""
    from ddsp.io import audio as audio_files
    from experiments import quiet
    from experiments.tracking.registry import resolve_bundle

    shift = 'auto' if pitch_shift == 'auto' else _number(pitch_shift, '--pitch-shift', " or 'auto'")
    _number(loudness_shift, '--loudness-shift')
    check_output(to, audio)
    audio_files.probe(audio)
    folder = resolve_bundle(model)
    check_output(to, folder)
    quiet.load_keras()
    from ddsp import inference

    with output.progress('Transfer (seconds of audio)', enabled=not as_json) as progress:
        result = inference.transfer_file(
            inference.load_bundle(folder), audio, to, pitch_shift_semitones=shift, progress=progress,
            loudness_shift_db=loudness_shift, match_loudness=match_loudness, reverb=reverb,
        )  # fmt: skip
    for warning in result.warnings:
        output.say(f'warning: {warning}')
    changes = {
        'pitch_shift_semitones': result.pitch_shift_semitones,
        'loudness_shift_db': round(result.loudness_shift_db, 2),
    }
    if as_json:
        output.print_json({'output': str(to), **changes, 'warnings': result.warnings})
    else:
        print(
            f'{to} (pitch shifted by {result.pitch_shift_semitones:+g} semitones, '
            f'loudness by {result.loudness_shift_db:+.1f} dB)'
        )
    return 0


def _number(value: str | float, option: str, more: str = '') -> float:
    """A number within the limits of a shift."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not -_MOST <= number <= _MOST:
        raise typer.BadParameter(
            f'{value} is not a number from {-_MOST:g} to {_MOST:g}{more}.', param_hint=option
        )
    return number


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp export runs/violin-laptop --format impulse-response --output room.wav[/bold]',
)
def export(
    model: str = argument('MODEL', MODEL),
    form: str = option(..., 'What to export.', '--format', **choice('impulse-response', 'saved-model')),
    to: pathlib.Path = option(..., 'File or folder to write.', '--output'),
    as_json: bool = JSON,
) -> int:
    """Export a model, or a part of it, for other programs."""
    from experiments import quiet
    from experiments.tracking.registry import resolve_bundle

    folder = resolve_bundle(model)
    quiet.load_keras()
    from ddsp import export as exporting
    from ddsp import inference

    bundle = inference.load_bundle(folder)
    if form == 'impulse-response':
        path = exporting.export_impulse_response(bundle, to)
    else:
        path = exporting.export_saved_model(bundle, to)
    if as_json:
        output.print_json({'output': str(path), 'format': form})
    else:
        print(path)
    return 0


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp promote violin-2 --name violin[/bold], or the best of an experiment if it '
    'beats the champion: [bold]ddsp promote --experiment violin --if-better --name violin[/bold]',
)
def promote(
    run: str = argument('RUN', 'Id (or its beginning), name or training folder; or give --experiment.', ''),
    name: str = option('', 'Name in the model registry.', shown='that of the experiment'),
    alias: str = option('champion', 'Alias to assign.'),
    experiment: str = option('', 'Take the best run by --metric of this experiment.'),
    condition: str = option('', FILTER, '--filter'),
    metric: str = option(metrics.OBJECTIVE, 'Metric for --experiment and --if-better.'),
    if_better: bool = option(
        False, 'Move the alias only if the run beats its current holder.', '--if-better'
    ),
    as_json: bool = JSON,
) -> int:
    """Register a run's model and make it the champion."""
    from experiments.tracking import registry, runs, store

    if bool(run) == bool(experiment):
        raise typer.BadParameter('give a run, or --experiment.')
    client = store.client()
    if experiment:
        found = runs.list_runs(client, experiments=[experiment], condition=condition, best=metric, limit=1)
        if not found or metric not in found[0].data.metrics:
            raise store.TrackingError(f'no run of {experiment!r} that matches has the metric {metric!r}.')
        run = found[0].info.run_id
    name = name or client.get_experiment(store.find_run(client, run).info.experiment_id).name
    version, moved = registry.promote(run, name, alias=alias, better_by=metric if if_better else '')
    address = f'models:/{name}@{alias}'
    if as_json:
        found_version = {'name': name, 'version': int(version.version), 'alias': alias, 'address': address}
        output.print_json({**found_version, 'moved': moved})
    elif moved:
        print(f'{name} version {version.version} is now {address}')
    else:
        print(f'{name} version {version.version} stays {address}: its {metric} is not worse')
    return 0
