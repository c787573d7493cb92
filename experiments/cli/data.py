"""`ddsp prepare`, `ddsp inspect` and `ddsp doctor`."""
# ruff: noqa: B008 - typer's options are defaults

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.options import EXPERIMENT, JSON, argument, choice, f0_choice, option
from pipelines.beam.engines import RUNNERS

if TYPE_CHECKING:
    from pipelines.inspect.health import Finding
    from pipelines.options import PrepareOptions
    from pipelines.result import PrepareResult

PANEL = 'Data'


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp prepare recordings/ --output data --name violin --f0 swift[/bold] '
    'On Dataflow: [bold]ddsp prepare gs://B/in --output gs://B/data --runner dataflow -- --project=ID '
    '--region=europe-west4 --temp_location=gs://B/tmp --sdk_container_image=IMAGE[/bold]',
)
def prepare(
    context: typer.Context,
    sources: list[str] = argument(
        'SOURCE', 'Files, folders or patterns of audio, here or on gs://; tfds:NAME; synthetic:SECONDS.'
    ),
    root: str = option('data', 'Folder of all datasets, here or on gs://: OUTPUT/NAME/VERSION.', '--output'),
    name: str = option('', 'Name of the dataset.', shown='that of the first source'),
    version: str = option(
        '',
        'Version of the dataset, such as 1.0.0.',
        metavar='<number>',
        shown='the newest while nothing changed, else the next',
    ),
    sample_rate: int = option(16000, 'Sample rate of the audio, and of models trained on it, in Hz.'),
    frame_rate: int = option(250, 'Frame rate of f0 and loudness, in Hz.'),
    example_secs: float = option(4.0, 'Length of an example in seconds.'),
    hop_secs: float = option(1.0, 'Time between the starts of successive examples in seconds.'),
    f0: str = option('auto', "Pitch estimator; 'ddsp doctor' lists those usable here.", **f0_choice()),
    viterbi: bool = option(True, 'Smooth f0 by the most likely path (Viterbi).'),
    splits: str = option('train=0.8,test=0.2', 'Share of the recordings in each split.'),
    num_shards: int | None = option(None, 'Files per split.', min=1, shown='one a minute'),
    workers: int | None = option(None, 'Worker processes.', min=1, shown='as cores and memory allow'),
    max_rejected: str = option('100%', 'Share of inputs that may be unusable, such as 5%.'),
    centered: bool = option(False, 'Add a frame at the end of each example.'),
    alignment: str = option(
        'center',
        'What frame i describes: the sound around time i / rate, or from there on (ddsp 3.7).',
        **choice('center', 'start'),
    ),
    pad_tail: bool = option(
        True, 'Pad and mask the end of a recording, or drop it.', '--pad-tail/--drop-tail'
    ),
    channel: str = option('mix', "'mix', or a channel number from 0."),
    normalize: str = option(
        '',
        "Bring every recording to a level: 'peak:-1' (-60 to 0) or 'loudness:-20' (-70 to 10).",
        metavar='<peak:DB|loudness:DB>',
        shown='as recorded',
    ),
    min_loudness_db: float | None = option(
        None, 'Drop examples that stay below this level in dB (silence: -60).', '--min-loudness'
    ),
    min_voiced: str = option('0%', 'Drop examples with a smaller share of pitched frames.'),
    power_db: bool = option(False, 'Add the feature power_db.', '--power/--no-power'),
    audio_16k: bool = option(False, 'Add audio_16k at 16 kHz, which ddsp 3.7.0 asks for.', '--audio-16k'),
    f0_rate: int | None = option(
        None,
        'Frame rate of the estimator, then interpolated: 100 is 2.5 times cheaper.',
        min=1,
        max=1000,
        shown='--frame-rate',
    ),
    track: bool | None = option(
        None,
        'Record the preparation in MLflow.',
        '--track/--no-track',
        shown='where MLFLOW_TRACKING_URI is set',
    ),
    experiment: str = EXPERIMENT,
    keep_features: bool = option(
        False, 'Keep the f0 and loudness that recordings bring along (NSynth).', '--keep-features'
    ),
    runner: str = option(
        'local', 'Engine; options of Beam for it follow a double dash at the end.', **choice(*RUNNERS)
    ),
    dry_run: bool = option(
        False, 'Show what would be submitted to the engine, and submit nothing.', '--dry-run'
    ),
    as_json: bool = JSON,
) -> int:
    """Turn recordings into a dataset: decoding, f0, loudness, TFRecords, statistics."""
    from pipelines.options import PrepareOptions
    from pipelines.prepare import prepare_dataset

    fields = {field.name for field in dataclasses.fields(PrepareOptions)}
    parsed = {
        'splits': _parse_splits(splits),
        'max_rejected': _parse_share(max_rejected, '--max-rejected'),
        'min_voiced': _parse_share(min_voiced, '--min-voiced'),
        'channel': int(channel) if re.fullmatch('-?[0-9]{1,9}', channel) else channel,
    }
    options = PrepareOptions(**{k: v for k, v in context.params.items() if k in fields} | parsed)
    sources, beam_options = _split_words(sources)
    name = name or _name_of(sources[0])
    if dry_run:
        return _show_submission(sources, root, name, version or None, options, runner, beam_options, as_json)
    with output.progress('Preparing (seconds of audio)', enabled=not as_json) as progress:
        result = prepare_dataset(
            sources,
            root,
            name,
            version or None,
            options=options,
            progress=progress,
            runner=runner,
            beam_options=beam_options,
        )
    from experiments.tracking import preparations

    tracked = track or (track is None and preparations.is_asked_for())
    _show_result(result, preparations.log_preparation(result, experiment) if tracked else '', as_json)
    return 0


def _split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Sources, and the options of Beam behind the double dash: all from the first that looks like one."""
    count = next((i for i, word in enumerate(words) if word.startswith('--')), len(words))
    if not count:
        raise typer.BadParameter(f'there is none before {words[0]!r}', param_hint='SOURCE')
    return words[:count], words[count:]


def _show_submission(
    sources: list[str],
    root: str,
    name: str,
    version: str | None,
    options: PrepareOptions,
    runner: str,
    beam_options: list[str],
    as_json: bool,
) -> int:
    """Prints what would be submitted to an engine."""
    from pipelines.beam import engines, graph
    from pipelines.prepare import make_request

    engines.check(runner, beam_options, root=root, sources=sources)
    request = make_request(sources, root, name, version, options, runner)
    shown = engines.describe(
        runner, beam_options, lambda pipeline: graph.build(pipeline, request), label=request.label
    )
    if as_json:
        output.print_json(shown)
    else:
        rows = [(key, value) for key, value in shown.items() if value not in ('', None, [], {})]
        output.print_table('Nothing was submitted', ('', ''), rows, header=False)
    return 0


def _show_result(result: PrepareResult, run_id: str, as_json: bool) -> None:
    """Prints what was prepared, and what to do with it."""
    from ddsp.io.files import writable

    if as_json:
        output.print_json({**dataclasses.asdict(result), 'run_id': run_id or None})
        return
    rows = result.summary_rows() + ([('MLflow run', run_id)] if run_id else [])
    output.print_table('', ('', ''), rows, header=False)
    if result.rejected:
        print(f'Why: {writable(str(result.path))}/rejected.jsonl')
    dataset = writable(str(result.path)).rpartition('/')[0]
    print(f'Look: ddsp inspect {dataset}')
    print(f'Next: ddsp train {dataset}')


@app.command(
    rich_help_panel=PANEL, epilog='Example: [bold]ddsp inspect data/violin --html violin.html --open[/bold]'
)
def inspect(
    dataset: str = argument('DATASET', "Dataset directory, or bare TFRecord files such as 'records/train*'."),
    examples: int = option(200, 'Examples to read per split.', min=1),
    to: pathlib.Path | None = option(None, 'Page to write.', '--html', shown='inspect-NAME-VERSION.html'),
    open_page: bool = option(False, 'Open the page in the browser.', '--open'),
    pickle: pathlib.Path | None = option(
        None, 'Also write the statistics of train as the dataset_statistics.pkl of ddsp 3.7.0.'
    ),
    as_json: bool = option(False, 'Print JSON; a page only where --html names it.', '--json'),
) -> int:
    """Show what is in a dataset, what is wrong with it, and how it sounds."""
    from experiments.reports.dataset_page import inspect_page, summary_rows
    from pipelines.inspect.health import check
    from pipelines.inspect.inspection import inspect_dataset

    inspection = inspect_dataset(dataset, examples)
    findings = check(inspection)
    if to is None and not as_json:
        to = pathlib.Path('-'.join(filter(None, ('inspect', inspection.name, inspection.version))) + '.html')
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(inspect_page(inspection, findings), encoding='utf-8')
    if as_json:
        output.print_json({**inspection.to_json(), 'findings': [vars(finding) for finding in findings]})
    else:
        output.print_table('', ('', ''), summary_rows(inspection), header=False)
        _print_findings(findings)
        print(f'Page: {to}')
    if pickle is not None:
        _write_pickle(dataset, pickle, as_json)
    if open_page and to is not None:
        import webbrowser

        webbrowser.open(to.resolve().as_uri())
    return 0


def _write_pickle(dataset: str, path: pathlib.Path, quiet: bool) -> None:
    """The statistics of the training split as ddsp 3.7.0 keeps them beside a model."""
    from experiments import quiet as noise

    noise.load_keras()
    from ddsp.training import data, postprocessing

    postprocessing.save_dataset_statistics(data.DatasetProvider(dataset, 'train'), path)
    if not quiet:
        print(f'Statistics: {path}')


def _print_findings(findings: Sequence[Finding]) -> None:
    """What is wrong with a dataset, and what to do."""
    colours = {'error': 'red', 'warning': 'yellow', 'note': 'blue'}
    rows = [(output.text(it.level, colours[it.level]), it.message, it.advice) for it in findings]
    well = [(output.text('ok', 'green'), 'nothing is wrong', '')]
    output.print_table('', ('', 'Found', 'Advice'), rows or well)


def _name_of(source: str) -> str:
    """A dataset's name from where its recordings are."""
    address = '://' in source or source.startswith(('tfds:', 'synthetic:'))
    path = pathlib.PurePosixPath(source.split(':', 1)[1]) if address else pathlib.Path(source).resolve()
    stem = re.sub(r'\W+', '_', path.stem).strip('_').lower()
    return stem if stem[:1].isalpha() else f'data_{stem}'.strip('_')


def _parse_share(text: str, name: str) -> float:
    """'5%' or '0.05' as a number from 0 to 1."""
    try:
        share = float(text.removesuffix('%')) / (100 if text.endswith('%') else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f'{text!r}: expected a share such as 5% or 0.05', param_hint=name)
    return share


def _parse_splits(text: str) -> dict[str, float]:
    """'train=0.8,test=0.2' as a dictionary."""
    splits = {}
    for part in text.split(','):
        name, equals, share = part.partition('=')
        try:
            splits[name.strip()] = float(share)
        except ValueError:
            equals = ''
        if not equals:
            raise typer.BadParameter(
                f'{text!r}: expected shares such as train=0.8,test=0.2', param_hint='--splits'
            )
    return splits


@app.command(rich_help_panel='This machine', epilog='Example: [bold]ddsp doctor --json[/bold]')
def doctor(as_json: bool = JSON) -> int:
    """Show what is installed and usable here, and what is missing."""
    from experiments import doctor as checks

    report = checks.run_checks()
    missing = [check for check in report if check.state == checks.MISSING]
    if as_json:
        output.print_json({'ok': not missing, 'checks': [vars(check) for check in report]})
        return int(bool(missing))
    marks = {
        checks.OK: output.text('ok', 'green'),
        checks.WARNING: output.text('--', 'yellow'),
        checks.MISSING: output.text('missing', 'red'),
    }
    rows = [(marks[check.state], check.name, check.found, check.advice) for check in report]
    output.print_table('', ('', 'What', 'Found', 'Advice'), rows)
    if missing:
        output.say(f'{len(missing)} required {"thing is" if len(missing) == 1 else "things are"} missing.')
    return int(bool(missing))
