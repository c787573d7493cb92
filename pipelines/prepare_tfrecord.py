"""Preparation with upstream's flags and output: bare TFRecord files beside each other, no dataset directory.

`ddsp prepare` is the better way: its directory says what is in it. This command is for scripts written for
ddsp 3.7.0. The records have upstream's features (`audio`, `audio_16k`, `f0_hz`, `f0_confidence`,
`loudness_db`) and, without `--center`, upstream's frames, which begin at their time. What differs: features
are computed before windows with context at the joints, the end of a recording is padded instead of lost,
silent, unpitched and unreadable inputs are left out and named, and the f0 estimator is the best one here.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Sequence

from ddsp.errors import ConfigError, DDSPError
from ddsp.flags import FlagParser
from ddsp.io.dataset import open_dataset
from ddsp.io.files import locked, replacing
from pipelines.options import PrepareOptions
from pipelines.prepare import prepare_dataset
from pipelines.publish.home import link
from pipelines.result import PrepareResult

_WORKERS = re.compile(r'--direct_num_workers=(\d+)')
_FLAGS = {
    'sample_rate': int, 'frame_rate': int, 'example_secs': float, 'hop_secs': float, 'f0': str,
    'chunk_secs': float, 'num_shards': int,
}  # fmt: skip


def prepare_tfrecord(
    input_audio_paths: Sequence[str],
    output_tfrecord_path: str | os.PathLike[str],
    num_shards: int | None = None,
    sample_rate: int = 16000,
    frame_rate: int = 250,
    example_secs: float = 4,
    hop_secs: float = 1,
    eval_split_fraction: float = 0.0,
    chunk_secs: float = 20.0,
    center: bool = False,
    viterbi: bool = True,
    f0: str = 'auto',
    pipeline_options: Sequence[str] = (),
) -> PrepareResult:
    """Prepares bare TFRecord files.

    Args not named here are those of `PrepareOptions`.

    Args:
      input_audio_paths: Files, folders or patterns.
      output_tfrecord_path: Beginning of the names of the files, such as `'data/train.tfrecord'`; with an
        evaluation split `-train` and `-eval` are added to it.
      eval_split_fraction: Share of the recordings that go to the evaluation split; 0: no such split.
      center: One frame more in each example, and frames that are centred on their time.
      pipeline_options: Beam options; `--direct_num_workers=N` is understood.

    Returns:
      What was done; its `path` is no longer there.

    Raises:
      ConfigError: An option has a value that is not allowed.
      DDSPError: No input can be used, or the output cannot be written.
    """
    if not 0 <= eval_split_fraction < 1:
        raise ConfigError(f'eval_split_fraction is {eval_split_fraction}; it must be from 0 to below 1.')
    splits = {'train': 1 - eval_split_fraction, 'eval': eval_split_fraction}
    options = PrepareOptions(
        sample_rate=sample_rate, frame_rate=frame_rate, example_secs=example_secs, hop_secs=hop_secs,
        viterbi=viterbi, splits={name: share for name, share in splits.items() if share},
        chunk_secs=chunk_secs, num_shards=num_shards, workers=_workers(pipeline_options), centered=center,
        alignment='center' if center else 'start', f0=f0, audio_16k=True,
    )  # fmt: skip
    target = pathlib.Path(output_tfrecord_path).expanduser()
    if not target.name:
        raise ConfigError(
            f"output_tfrecord_path is {output_tfrecord_path!r}; an example is 'data/train.tfrecord'."
        )
    # Of a fixed name, so that the same call goes on after an interruption.
    working = target.parent / f'.{target.name}.prepare'
    with locked(working, f'another preparation of {target} is running.'):
        result = prepare_dataset(list(input_audio_paths), working, 'records', options=options)
        dataset = open_dataset(result.path)
        written = set()
        for split in dataset.splits:
            stem = f'{target.name}-{split}' if eval_split_fraction else target.name
            files = dataset.files(split)
            for i, file in enumerate(files):
                name = f'{stem}-{i:05d}-of-{len(files):05d}'
                written.add(name)
                with replacing(target.with_name(name)) as part:
                    link(pathlib.Path(file), part)
        _remove_earlier(target, written)
        shutil.rmtree(working)
    return result


def _remove_earlier(target: pathlib.Path, written: set[str]) -> None:
    """Removes what an earlier call wrote to the same path: a pattern would find its examples, too."""
    ours = re.compile(re.escape(target.name) + '(-train|-eval)?-[0-9]{5}-of-[0-9]{5}')
    for path in target.parent.iterdir():
        if ours.fullmatch(path.name) and path.name not in written:
            path.unlink()


def _workers(pipeline_options: Sequence[str]) -> int | None:
    """The number of workers; refuses what would be ignored."""
    workers = None
    for option in pipeline_options:
        found = _WORKERS.fullmatch(option)
        if found:
            workers = int(found[1]) or None
        elif option not in ('', '--runner=DirectRunner', '--direct_running_mode=multi_processing'):
            raise ConfigError(
                f'pipeline_options has {option!r}; understood are --runner=DirectRunner and '
                '--direct_num_workers=N.'
            )
    return workers


def console_entry_point(argv: Sequence[str] | None = None) -> int:
    """The command `ddsp_prepare_tfrecord`; returns the exit status."""
    parser = FlagParser(prog='ddsp_prepare_tfrecord', description=__doc__.splitlines()[0])
    parser.add_argument('--input_audio_filepatterns', action='append', required=True, help='comma separated')
    parser.add_argument('--output_tfrecord_path', required=True, help='beginning of the names of the files')
    for field in dataclasses.fields(PrepareOptions):
        if kind := _FLAGS.get(field.name):
            names = [f'--{field.name}', *(['--sliding_window_hop_secs'] if field.name == 'hop_secs' else [])]
            parser.add_argument(*names, type=kind, default=field.default, help=field.metadata['help'])
    parser.add_argument('--eval_split_fraction', type=float, default=0.0, help='share of the recordings')
    parser.switch('center', 'centred frames, one more in each example')
    parser.switch('viterbi', 'join f0 by a likely path')
    parser.set_defaults(viterbi=True)
    parser.add_argument('--pipeline_options', default='--runner=DirectRunner', help='Beam options')
    flags = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
    patterns = [p for given in flags['input_audio_filepatterns'] for p in given.split(',') if p]
    same = {name: flags[name] for name in (*_FLAGS, 'eval_split_fraction', 'center', 'viterbi')}
    options = flags['pipeline_options'].split(',')
    try:
        result = prepare_tfrecord(patterns, flags['output_tfrecord_path'], pipeline_options=options, **same)
    except DDSPError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 1
    for label, value in result.summary_rows()[1:]:
        print(f'{label}: {value}')
    return 0


if __name__ == '__main__':
    sys.exit(console_entry_point())
