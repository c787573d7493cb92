"""Training, evaluation and sampling with upstream's flags: `ddsp_run --mode=train --gin_file=...`.

For tracked runs use `ddsp train`; this command is for scripts and configurations written for ddsp 3.7.0. Gin
files are read in upstream's order, later ones win: `optimization/base.gin`, `eval/basic.gin`, the newest
operative configuration in the restore directory, `--gin_file`, `--gin_param`. Names that do not exist are
errors here. A folder may come from somebody else: of its operative configuration only plain settings of model
and training count. Data and modules of one's own are always named by `--gin_file` and `--gin_param`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from ddsp.errors import ConfigError, DDSPError
from ddsp.flags import FlagParser

_BASE = ('optimization/base.gin', 'eval/basic.gin')
_DEFAULT_FOLDER = 'runs/ddsp_run'  # upstream's is /tmp/ddsp, which everybody on a machine can fill


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Upstream's flags."""
    parser = FlagParser(prog='ddsp_run', description=__doc__.splitlines()[0])
    parser.add_argument('--mode', choices=('train', 'eval', 'sample'), default='train', help='what to do')
    parser.add_argument('--save_dir', default=_DEFAULT_FOLDER, help='where checkpoints and results go')
    parser.add_argument('--restore_dir', default='', help='where checkpoints come from; save_dir by default')
    parser.add_argument('--tpu', default='', help='address of a TPU')
    parser.add_argument('--cluster_config', default='', help='as in TF_CONFIG, JSON')
    parser.switch('allow_memory_growth', 'take GPU memory as it is needed')
    parser.switch('hypertune', 'not supported: the service is gone')
    parser.add_argument('--early_stop_loss_value', type=float, help='end when the total loss is at most this')
    for name, text in (('search_path', 'folder of gin files'), ('file', 'gin file'), ('param', 'binding')):
        parser.add_argument(f'--gin_{name}', action='append', default=[], help=f'{text}; may be repeated')
    parser.switch('run_once', 'evaluate the newest checkpoint alone')
    parser.add_argument('--initial_delay_secs', type=float, help='wait before starting')
    flags = parser.parse_args(argv)
    if flags.hypertune:
        raise ConfigError('--hypertune is not supported, because the service is gone: use `ddsp sweep`.')
    return flags


def configure(flags: argparse.Namespace) -> None:
    """Reads the configuration in upstream's order."""
    from ddsp.training import config

    config.parse_config(_BASE)
    _read_folder(flags.restore_dir or flags.save_dir)
    config.parse_config(flags.gin_file, flags.gin_param, flags.gin_search_path, clear=False)
    job = {'eval': 'evaluate'}.get(flags.mode, flags.mode)
    if not config.is_bound(f'{job}.data_provider'):
        raise ConfigError(
            f'the configuration has no {job}.data_provider: add --gin_file=datasets/tfrecord.gin and '
            '--gin_param="TFRecordProvider.file_pattern=\'data/train.tfrecord*\'"'
        )


def _read_folder(folder: str) -> None:
    """Adds the plain settings of a folder's operative configuration; says what else is in it."""
    import tensorflow as tf

    from ddsp.io import files, gcs
    from ddsp.training import safe_config, train_util

    try:
        path = train_util.get_latest_operative_config(folder)
    except FileNotFoundError:  # a new training has none
        return
    if not gcs.is_gcs(path):
        files.inside(*os.path.split(path), folder)
    with tf.io.gfile.GFile(path, 'rb') as file:
        content = file.read()
    try:
        text = content.decode('utf-8')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path} is damaged: it is not UTF-8 text ({error})') from None
    for left_out in safe_config.parse_settings(text, path):
        print(f'Note: not read from {path}, {left_out}', file=sys.stderr)


def run(flags: argparse.Namespace) -> None:
    """Trains, evaluates or samples."""
    import tensorflow as tf

    from ddsp.training import eval_util, models, train_util, trainers

    if flags.initial_delay_secs:
        time.sleep(flags.initial_delay_secs)
    if flags.allow_memory_growth:
        for device in tf.config.list_physical_devices('GPU'):
            tf.config.experimental.set_memory_growth(device, True)
    configure(flags)
    restore_dir = flags.restore_dir or flags.save_dir
    if flags.mode == 'train':
        strategy = train_util.get_strategy(flags.tpu, flags.cluster_config)
        with strategy.scope():
            trainer = trainers.get_trainer_class()(models.get_model(), strategy)
        early = {} if flags.early_stop_loss_value is None else {
            'early_stop_loss_value': flags.early_stop_loss_value
        }  # fmt: skip
        watcher = train_util.TrainingCallback()
        watcher.on_summary = _print_losses  # type: ignore[method-assign]
        train_util.train(
            trainer=trainer, save_dir=flags.save_dir, restore_dir=restore_dir, callbacks=[watcher], **early
        )
        return
    job = eval_util.evaluate if flags.mode == 'eval' else eval_util.sample
    results = job(
        model=models.get_model(), save_dir=flags.save_dir, restore_dir=restore_dir, run_once=flags.run_once
    )
    for name, value in sorted(results.items()):
        print(f'{name}: {value:.6g}')


def _print_losses(step: int, metrics: dict[str, float]) -> None:
    losses = ' '.join(
        f'{name.removeprefix("losses/")}={value:.4g}'
        for name, value in sorted(metrics.items())
        if name.startswith('losses/')
    )
    print(f'step {step}: {losses} ({metrics["speed/steps_per_sec"]:.3g} steps/s)', flush=True)


def console_entry_point(argv: Sequence[str] | None = None) -> int:
    """The command `ddsp_run`; returns the exit status."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        run(parse_flags(sys.argv[1:] if argv is None else argv))
    except DDSPError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print('Stopped; the same command goes on from here.', file=sys.stderr)
        return getattr(stop, 'exit_code', 130)
    return 0


if __name__ == '__main__':
    sys.exit(console_entry_point())
