"""Training, evaluation and sampling with upstream's flags: `ddsp_run --mode=train --gin_file=...`.

For tracked runs use `ddsp train`; this command is for scripts and configurations written for ddsp 3.7.0. Gin
files are read in upstream's order, later ones win: `optimization/base.gin`, `eval/basic.gin`, the newest
operative configuration in the restore directory, `--gin_file`, `--gin_param`. Names that do not exist are
errors here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence

from ddsp.errors import ConfigError, DDSPError
from ddsp.flags import FlagParser

_BASE = ('optimization/base.gin', 'eval/basic.gin')


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Upstream's flags."""
    parser = FlagParser(prog='ddsp_run', description=__doc__.splitlines()[0])
    parser.add_argument('--mode', choices=('train', 'eval', 'sample'), default='train', help='what to do')
    parser.add_argument('--save_dir', default='/tmp/ddsp', help='where checkpoints and results go')
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
    from ddsp.training import config, train_util

    files = list(_BASE)
    with contextlib.suppress(FileNotFoundError):  # a new training has none
        files.append(train_util.get_latest_operative_config(flags.restore_dir or flags.save_dir))
    config.parse_config([*files, *flags.gin_file], flags.gin_param, flags.gin_search_path)
    job = {'eval': 'evaluate'}.get(flags.mode, flags.mode)
    if not config.is_bound(f'{job}.data_provider'):
        raise ConfigError(
            f'the configuration has no {job}.data_provider: add --gin_file=datasets/tfrecord.gin and '
            '--gin_param="TFRecordProvider.file_pattern=\'data/train.tfrecord*\'"'
        )


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
