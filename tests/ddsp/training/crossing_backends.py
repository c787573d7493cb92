"""Goes on with a training that another Keras backend has begun; run as a script, once for each move.

python crossing_backends.py DATASET FOLDER FROM TO

FROM and TO are names within FOLDER; `-` begins anew. Two steps, a checkpoint, and what it holds as arrays;
then the loss of one more step, which whoever goes on has to find.
"""

import os
import sys

import keras
import numpy as np

from ddsp.io.dataset import open_dataset
from ddsp.training import config, data, models, rates, states, train_util, trainers


def make(dataset, *bindings):
    """A small solo instrument, harmonic sound, noise and reverb, with its trainer."""
    tiny = [
        'RnnFcDecoder.rnn_channels = 8', 'RnnFcDecoder.ch = 20', 'RnnFcDecoder.layers_per_stack = 1',
        "RnnFcDecoder.output_splits = (('amps', 1), ('harmonic_distribution', 4), ('noise_magnitudes', 5))",
        'SpectralLoss.fft_sizes = (256,)', 'Reverb.reverb_length = 800', 'train.batch_size = 4',
        'F0LoudnessPreprocessor.compute_loudness = False', 'Trainer.learning_rate = 0.003',
    ]  # fmt: skip
    config.parse_config(['models/solo_instrument.gin'], [*tiny, *bindings])
    rates.configure_for_dataset(dataset)
    keras.utils.set_random_seed(0)
    return trainers.get_trainer_class()(models.get_model(), train_util.get_strategy())


def values(trainer):
    """All that a checkpoint holds."""
    return states.State(trainer.model, trainer.optimizer).copy()


def check_parts(trainer, prefix, expected):
    """The decoder alone, from a checkpoint of the other backend."""
    before = values(trainer)
    assert trainer.restore(prefix, ['decoder']) == prefix
    for name, value in values(trainer).items():
        source = expected if name.startswith('model/decoder/') else before
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert np.any(before['model/decoder/dense_out/kernel'] != expected['model/decoder/dense_out/kernel'])
    assert trainer.step == 0


def main(address, folder, source, target):
    """One move."""
    dataset = open_dataset(address)
    provider = data.DatasetProvider(dataset, 'train')
    batch = next(iter(provider.get_batch(4, shuffle=False)))
    trainer = make(dataset)
    trainer.build(batch)
    if source != '-':
        expected = dict(np.load(os.path.join(folder, f'{source}.npz')))
        loss = expected.pop('loss')
        prefix = os.path.join(folder, source, f'ckpt-{expected["optimizer/iteration"]}')
        check_parts(trainer, prefix, expected)
        assert trainer.restore(os.path.join(folder, source)) == prefix
        found = values(trainer)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert trainer.step == expected['optimizer/iteration']
    losses = [float(trainer.train_step(batch)['total_loss']) for _ in range(2)]
    if source != '-':
        np.testing.assert_allclose(losses[0], loss, rtol=1e-4)
        print('the next loss', losses[0], 'and undisturbed', loss)
    trainer.save(os.path.join(folder, target))
    saved = values(trainer)
    after = float(trainer.train_step(batch)['total_loss'])
    np.savez(os.path.join(folder, f'{target}.npz'), loss=after, **saved)
    print('losses', *losses, after, 'step', trainer.step - 1, 'on', keras.backend.backend())


if __name__ == '__main__':
    main(*sys.argv[1:])
