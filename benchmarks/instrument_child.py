"""Trains an instrument for some CPU time and plays what was held out; with public names of ddsp 3.7.0 alone.

It runs unchanged on this library and on ddsp 3.7.0, each in an environment of its own: the only difference is
what is imported as `ddsp`. Only the CPU time of training counts (building and compiling the step included,
imports and the playing at the marks not). Its one argument is what `benchmarks/instrument.py` writes.
Marks may be steps instead. Held-out examples may be longer than those that are trained on (`play_params`).
"""

import json
import os
import resource
import sys
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def cpu_seconds():
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def play(model, provider, path, np):
    """The held-out examples through the model, in order, with what they should sound like."""
    rows = {'audio': [], 'audio_gen': []}
    for batch in provider.get_batch(batch_size=1, shuffle=False, repeats=1):
        outputs = model(batch, training=False)
        rows['audio'].append(np.asarray(batch['audio'])[0])
        rows['audio_gen'].append(np.asarray(model.get_audio_from_outputs(outputs))[0])
    np.savez(path, **{key: np.stack(value) for key, value in rows.items()})


def whole_model(model, task, batch, gin, models):
    """The model that plays held-out examples: this one, or one for their length with its weights."""
    if not task['play_params']:
        return model
    with gin.unlock_config():
        gin.parse_config(task['play_params'])
    other = models.get_model()
    other(batch, training=False)
    other.set_weights(model.get_weights())
    return other


def main(task):
    """Trains until the last mark."""
    import gin
    import numpy as np
    import tensorflow as tf

    import ddsp.training
    from ddsp.training import data, models, train_util, trainers

    tf.random.set_seed(task['seed'])
    gin.add_config_file_search_path(os.path.join(os.path.dirname(ddsp.training.__file__), 'gin'))
    with gin.unlock_config():
        gin.parse_config_files_and_bindings(task['gin_files'], task['gin_params'], skip_unknown=False)
    batch_size = task['batch_size']
    crop = {'crop_secs': task['crop_secs']} if task['crop_secs'] else {}
    provider = data.LegacyTFRecordProvider(task['train'], **crop)
    held_out = data.LegacyTFRecordProvider(task['test'])
    strategy = train_util.get_strategy()
    with strategy.scope():
        model = models.get_model()
        trainer = trainers.get_trainer_class()(model, strategy)
    start = cpu_seconds()
    batches = iter(trainer.distribute_dataset(provider.get_batch(batch_size, shuffle=True, repeats=-1)))
    trainer.build(next(batches))
    away, step, losses = 0.0, 0, []
    wall = time.monotonic()
    for mark in task['marks']:
        while (step if task['count_steps'] else cpu_seconds() - start - away) < mark:
            loss = trainer.train_step(batches)
            step += 1
            if step % 10 == 0:
                losses.append([step, float(loss['total_loss'])])
        spent = cpu_seconds() - start - away
        before = cpu_seconds()
        example = next(iter(held_out.get_batch(1, shuffle=False, repeats=1)))
        whole = whole_model(model, task, example, gin, models)
        play(whole, held_out, os.path.join(task['out'], f'{mark}.npz'), np)
        away += cpu_seconds() - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print('RESULT ' + json.dumps(
            {'mark': mark, 'step': step, 'cpu_s': spent, 'wall_s': time.monotonic() - wall, 'peak_mb': peak,
             'losses': losses, 'version': getattr(ddsp, '__version__', '')}), flush=True)  # fmt: skip


if __name__ == '__main__':
    main(json.loads(sys.argv[1]))
