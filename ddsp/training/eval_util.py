"""Evaluation of the checkpoints of a training, once or as they come."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import gin

from ddsp.errors import ConfigError
from ddsp.io import files
from ddsp.training import checkpoints
from ddsp.training.data import DatasetProvider, iterate
from ddsp.training.train_util import expand_path

_POLL_SECS = 5.0
_MODES = ('eval', 'sample')


def evaluate_or_sample(
    data_provider: Any,
    model: Any,
    evaluator_classes: Sequence[Any],
    mode: str = 'eval',
    save_dir: str = 'runs/ddsp_run',
    restore_dir: str = '',
    batch_size: int = 32,
    num_batches: int = 50,
    repeats: int = -1,
    ckpt_delay_secs: float = 0,
    run_once: bool = False,
    run_until_step: int = 0,
    evaluate_and_sample: bool = False,
) -> dict[str, float]:
    """Evaluates the newest checkpoint, and then every new one.

    Args:
      data_provider: A `ddsp.training.data.DataProvider`.
      model: The model; its weights come from the checkpoint.
      evaluator_classes: Classes of `ddsp.training.evaluators`.
      mode: `'eval'`: measures go to `<save_dir>/eval/metrics-<step>.json`; `'sample'`: audio goes to
        `<save_dir>/samples`.
      save_dir: Where results go.
      restore_dir: Where the checkpoints are; by default `save_dir`.
      batch_size: Examples of a batch.
      num_batches: Batches for each checkpoint; -1: all of the data, once.
      repeats: Passes over the data, when it is too short; -1: as many as it takes.
      ckpt_delay_secs: Seconds to wait before each evaluation, unless `run_once`.
      run_once: Stop after the newest checkpoint.
      run_until_step: Stop after a checkpoint of this step or a later one; 0: never.
      evaluate_and_sample: Do both.

    Returns:
      The measures of the last checkpoint.

    Raises:
      CheckpointError: There is no checkpoint.
      ConfigError: Unknown mode.
    """
    if mode not in _MODES:
        raise ConfigError(f'mode is {mode!r}; it must be one of {_MODES}')
    save_dir, restore_dir = expand_path(save_dir), expand_path(restore_dir or save_dir)
    evaluators = [cls(data_provider.sample_rate, data_provider.frame_rate) for cls in evaluator_classes]
    if isinstance(data_provider, DatasetProvider):
        for evaluator in evaluators:
            evaluator.set_reference(data_provider.dataset.manifest['f0_estimator'])
    modes = set(_MODES) if evaluate_and_sample else {mode}
    done = ''
    while True:
        newest = checkpoints.get_latest_checkpoint(restore_dir)
        if newest == done:
            time.sleep(_POLL_SECS)
            continue
        time.sleep(0 if run_once else ckpt_delay_secs)
        dataset = data_provider.get_batch(
            batch_size, shuffle=False, repeats=1 if num_batches < 0 else repeats, drop_remainder=False
        )
        results = _run(data_provider, dataset, num_batches, model, newest, evaluators, modes, save_dir)
        done = newest
        step = checkpoints.checkpoint_step(newest)
        if run_once or (run_until_step and step >= run_until_step):
            return results


def _run(
    data_provider: Any,
    dataset: Any,
    num_batches: int,
    model: Any,
    checkpoint: str,
    evaluators: Sequence[Any],
    modes: set[str],
    save_dir: str,
) -> dict[str, float]:
    """One checkpoint."""
    step = checkpoints.checkpoint_step(checkpoint)
    for i, batch in enumerate(
        iterate(data_provider, dataset if num_batches < 0 else dataset.take(num_batches))
    ):
        if i == 0:
            model({key: value[:1] for key, value in batch.items()}, training=True)  # creates the weights
            model.restore(checkpoint, verbose=False)
        outputs, losses = model(batch, return_losses=True, training=True)
        outputs = {**outputs, 'audio_gen': model.get_audio_from_outputs(outputs)}
        for evaluator in evaluators:
            if 'eval' in modes:
                evaluator.evaluate(batch, outputs, losses)
            if 'sample' in modes:
                evaluator.sample(batch, outputs, step, save_dir)
    results: dict[str, float] = {}
    for evaluator in evaluators:
        results |= evaluator.flush(step)
    if 'eval' in modes:
        folder = pathlib.Path(save_dir) / 'eval'
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / f'metrics-{step}.json', {'step': step, **results})
    return results


@gin.configurable(module='ddsp.training.eval_util')
def evaluate(
    data_provider: Any,
    model: Any,
    evaluator_classes: Sequence[Any],
    save_dir: str = 'runs/ddsp_run',
    restore_dir: str = '',
    batch_size: int = 32,
    num_batches: int = 50,
    repeats: int = -1,
    ckpt_delay_secs: float = 0,
    run_once: bool = False,
    run_until_step: int = 0,
    evaluate_and_sample: bool = False,
) -> dict[str, float]:
    """`evaluate_or_sample` in mode `'eval'`."""
    return evaluate_or_sample(
        data_provider, model, evaluator_classes, 'eval', save_dir, restore_dir, batch_size, num_batches,
        repeats, ckpt_delay_secs, run_once, run_until_step, evaluate_and_sample,
    )  # fmt: skip


@gin.configurable(module='ddsp.training.eval_util')
def sample(
    data_provider: Any,
    model: Any,
    evaluator_classes: Sequence[Any],
    save_dir: str = 'runs/ddsp_run',
    restore_dir: str = '',
    batch_size: int = 16,
    num_batches: int = 1,
    ckpt_delay_secs: float = 0,
    run_once: bool = False,
    run_until_step: int = 0,
    evaluate_and_sample: bool = False,
) -> dict[str, float]:
    """`evaluate_or_sample` in mode `'sample'`."""
    return evaluate_or_sample(
        data_provider, model, evaluator_classes, 'sample', save_dir, restore_dir, batch_size, num_batches, -1,
        ckpt_delay_secs, run_once, run_until_step, evaluate_and_sample,
    )  # fmt: skip
