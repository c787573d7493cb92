"""`ddsp doctor`, `ddsp prepare` and `ddsp inspect`."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli import output
from experiments.cli.app import app
from experiments.cli.options import JsonOption, choice, f0_choice

if TYPE_CHECKING:
    from pipelines.inspect.health import Finding

PANEL = 'Data'


@app.command(rich_help_panel=PANEL, epilog='Example: [bold]ddsp doctor --json[/bold]')
def doctor(as_json: JsonOption = False) -> int:
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


@app.command(
    rich_help_panel=PANEL,
    epilog='Example: [bold]ddsp prepare recordings/ --output data --name violin --f0 swift[/bold]',
)
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar='SOURCE',
            help='Files, folders or patterns of audio, here or on gs://; tfds:NAME; synthetic:SECONDS.',
        ),
    ],
    root: Annotated[
        str,
        typer.Option(
            '--output', '--root', help='Folder of all datasets, here or on gs://: OUTPUT/NAME/VERSION.'
        ),
    ] = 'data',
    name: Annotated[
        str, typer.Option('--name', help='Name of the dataset.', show_default='that of the first source')
    ] = '',
    version: Annotated[
        str,
        typer.Option(
            '--version',
            metavar='<number>',
            help='Version of the dataset, such as 1.0.0.',
            show_default='the newest while nothing changed, else the next',
        ),
    ] = '',
    sample_rate: Annotated[
        int, typer.Option('--sample-rate', help='Sample rate of the audio, Hz, and so of the models.')
    ] = 16000,
    frame_rate: Annotated[
        int, typer.Option('--frame-rate', help='Of f0 and loudness, frames per second.')
    ] = 250,
    example_secs: Annotated[
        float, typer.Option('--example-secs', help='Length of an example, seconds.')
    ] = 4.0,
    hop_secs: Annotated[
        float, typer.Option('--hop-secs', help='Seconds from the start of an example to that of the next.')
    ] = 1.0,
    f0: Annotated[
        str,
        typer.Option('--f0', help="Pitch estimator; 'ddsp doctor' lists those usable here.", **f0_choice()),
    ] = 'auto',
    viterbi: Annotated[
        bool, typer.Option('--viterbi/--no-viterbi', help='Join f0 frames by a likely path.')
    ] = True,
    splits: Annotated[
        str, typer.Option('--splits', help='Share of the recordings of each split.')
    ] = 'train=0.8,test=0.2',
    num_shards: Annotated[
        int | None,
        typer.Option('--num-shards', min=1, help='Files of each split.', show_default='one a minute'),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option('--workers', min=1, help='Processes.', show_default='as cores and memory allow'),
    ] = None,
    max_rejected: Annotated[
        str, typer.Option('--max-rejected', help='Share of inputs that may be unusable, such as 5%.')
    ] = '100%',
    centered: Annotated[
        bool, typer.Option('--centered/--no-centered', help='One frame more, at the end of the example.')
    ] = False,
    alignment: Annotated[
        str,
        typer.Option(
            '--alignment',
            help='What frame i describes: the sound around time i / rate, or from there on (ddsp 3.7).',
            **choice('center', 'start'),
        ),
    ] = 'center',
    pad_tail: Annotated[
        bool,
        typer.Option('--pad-tail/--drop-tail', help='Pad and mask the end of a recording, or leave it out.'),
    ] = True,
    channel: Annotated[
        str, typer.Option('--channel', help="'mix', or the number of the channel from 0.")
    ] = 'mix',
    normalize: Annotated[
        str,
        typer.Option(
            '--normalize',
            metavar='<peak:DB|loudness:DB>',
            help="Bring every recording to a level: 'peak:-1' (-60 to 0) or 'loudness:-20' (-70 to 10).",
            show_default='as recorded',
        ),
    ] = '',
    min_loudness_db: Annotated[
        float | None,
        typer.Option('--min-loudness', help='Leave out examples that stay below so many dB (silence: -60).'),
    ] = None,
    min_voiced: Annotated[
        str, typer.Option('--min-voiced', help='Leave out examples with a smaller share of pitched frames.')
    ] = '0%',
    power_db: Annotated[
        bool, typer.Option('--power/--no-power', help='Examples also hold power_db.')
    ] = False,
    audio_16k: Annotated[
        bool, typer.Option('--audio-16k', help='Hold audio_16k at 16 kHz too, which ddsp 3.7.0 asks for.')
    ] = False,
    f0_rate: Annotated[
        int | None,
        typer.Option(
            '--f0-rate',
            min=1,
            max=1000,
            help='Frames per second of the estimator, then interpolated: 100 is 2.5 times cheaper.',
            show_default='--frame-rate',
        ),
    ] = None,
    track: Annotated[
        bool | None,
        typer.Option(
            '--track/--no-track',
            help='Record the preparation in MLflow.',
            show_default='where MLFLOW_TRACKING_URI is set',
        ),
    ] = None,
    experiment: Annotated[str, typer.Option('--experiment', help='MLflow experiment.')] = 'ddsp',
    keep_features: Annotated[
        bool,
        typer.Option('--keep-features', help='Recordings with their own f0 and loudness (NSynth) keep them.'),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Make a dataset of recordings: decode, f0, loudness, TFRecords, statistics."""
    from ddsp.io.files import writable
    from pipelines.options import PrepareOptions
    from pipelines.prepare import prepare_dataset

    options = PrepareOptions(
        sample_rate=sample_rate, frame_rate=frame_rate, example_secs=example_secs, hop_secs=hop_secs, f0=f0,
        viterbi=viterbi, splits=_parse_splits(splits), num_shards=num_shards, workers=workers,
        max_rejected=_parse_share(max_rejected), centered=centered, alignment=alignment, pad_tail=pad_tail,
        keep_features=keep_features, normalize=normalize, min_loudness_db=min_loudness_db,
        min_voiced=_parse_share(min_voiced, '--min-voiced'), power_db=power_db, audio_16k=audio_16k,
        f0_rate=f0_rate, channel=int(channel) if re.fullmatch('-?[0-9]{1,9}', channel) else channel,
    )  # fmt: skip
    with output.progress('Preparing (seconds of audio)', enabled=not as_json) as progress:
        result = prepare_dataset(
            sources, root, name or _name_of(sources[0]), version or None, options=options, progress=progress
        )
    from experiments.tracking import preparations

    tracked = track or (track is None and preparations.is_asked_for())
    run_id = preparations.log_preparation(result, experiment) if tracked else ''
    if as_json:
        output.print_json({**dataclasses.asdict(result), 'run_id': run_id or None})
        return 0
    rows = result.summary_rows() + ([('MLflow run', run_id)] if run_id else [])
    output.print_table('', ('', ''), rows, header=False)
    if result.rejected:
        print(f'Why: {writable(str(result.path))}/rejected.jsonl')
    dataset = writable(str(result.path)).rpartition('/')[0]
    print(f'Look: ddsp inspect {dataset}')
    print(f'Next: ddsp train {dataset}')
    return 0


@app.command(
    rich_help_panel=PANEL, epilog='Example: [bold]ddsp inspect data/violin --html violin.html --open[/bold]'
)
def inspect(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar='DATASET', help="Dataset directory, or bare TFRecord files such as 'records/train*'."
        ),
    ],
    examples: Annotated[
        int, typer.Option('--examples', min=1, help='Examples of each split that are read.')
    ] = 200,
    to: Annotated[
        pathlib.Path | None,
        typer.Option('--html', help='Page to write.', show_default='inspect-NAME-VERSION.html'),
    ] = None,
    open_page: Annotated[bool, typer.Option('--open', help='Open the page in the browser.')] = False,
    pickle: Annotated[
        pathlib.Path | None,
        typer.Option('--pickle', help='Write train as the dataset_statistics.pkl of ddsp 3.7.0 too.'),
    ] = None,
    as_json: Annotated[
        bool, typer.Option('--json', help='Print JSON; a page only where --html names it.')
    ] = False,
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


def _parse_share(text: str, option: str = '--max-rejected') -> float:
    """'5%' or '0.05' as a number from 0 to 1."""
    try:
        share = float(text.removesuffix('%')) / (100 if text.endswith('%') else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f'{text!r}: expected a share such as 5% or 0.05', param_hint=option)
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
