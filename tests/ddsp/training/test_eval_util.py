"""Evaluation of checkpoints: a whole split, the newest checkpoint, what is written and what is refused."""

import json
import threading

import numpy as np
import pytest

from ddsp.errors import ConfigError
from ddsp.training import checkpoints, config, data, eval_util, evaluators, models, train_util, trainers


@pytest.fixture(scope='module')
def trained(tone_dataset, configure_tiny, tmp_path_factory):
    """A folder with the checkpoints of two steps, and a new model of the same configuration."""
    import keras

    folder = tmp_path_factory.mktemp('trained')
    with config.isolated():
        configure_tiny()
        keras.utils.set_random_seed(0)
        trainer = trainers.Trainer(models.get_model(), train_util.get_strategy())
        provider = data.DatasetProvider(tone_dataset)
        train_util.train(provider, trainer, num_steps=2, steps_per_save=1, save_dir=str(folder))
        return folder, trainer, models.get_model()


@pytest.mark.parametrize('keys', [None, ['decoder'], ['processor_group']])
def test_every_weight_is_restored(trained, tone_features, keys):
    """Also those of layers in lists, which TensorFlow's checkpoints pass over."""
    folder, trainer, _ = trained
    with config.isolated():
        config.parse_config([str(folder / 'operative_config-2.gin')])
        model = models.get_model()
    model({name: np.asarray(value)[None] for name, value in tone_features.items()}, training=True)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.restore(str(folder), verbose=False, restore_keys=keys)
    parts = [getattr(model, key) for key in keys] if keys else [model]
    wanted = {id(weight) for part in parts for weight in part.trainable_weights}
    assert wanted
    weights = zip(model.trainable_weights, before, trainer.model.trainable_weights, strict=True)
    for weight, old, saved in weights:
        expected = saved.numpy() if id(weight) in wanted else old
        np.testing.assert_array_equal(weight.numpy(), expected, err_msg=weight.path)
    assert any(
        not np.array_equal(old, saved.numpy())
        for _, old, saved in zip(
            model.trainable_weights, before, trainer.model.trainable_weights, strict=True
        )
    )


def test_all_examples_of_a_split_count_once(trained, tone_dataset):
    folder, trainer, model = trained
    provider = data.DatasetProvider(tone_dataset, 'test')
    classes = [evaluators.BasicEvaluator, evaluators.F0LdEvaluator]
    found = eval_util.evaluate(
        provider, model, classes, str(folder), batch_size=3, num_batches=-1, run_once=True
    )
    (batch,) = provider.get_batch(3, shuffle=False, repeats=1)
    outputs, losses = trainer.model(batch, return_losses=True, training=True)
    # The noise is drawn anew.
    assert found['losses/total_loss'] == pytest.approx(float(losses['total_loss']), rel=0.01)
    by_hand = evaluators.F0LdEvaluator(16000, 250)
    by_hand.evaluate(batch, {'audio_gen': trainer.model.get_audio_from_outputs(outputs)}, {})
    expected = by_hand.flush(2)
    assert found['loudness_db'] == pytest.approx(expected['loudness_db'], rel=0.01)
    assert set(expected) <= set(found)
    written = json.loads((folder / 'eval' / 'metrics-2.json').read_text())
    assert written == {'step': 2, **found}


def test_new_checkpoints_are_waited_for(trained, tone_dataset, tmp_path, monkeypatch):
    """Step 1 is there; step 2 comes while it waits, and ends it."""
    import shutil

    folder, _, model = trained
    monkeypatch.setattr(eval_util, '_POLL_SECS', 0.05)
    first = list(folder.glob('ckpt-1.*'))
    assert first
    for path in first:
        shutil.copy(path, tmp_path)
    provider = data.DatasetProvider(tone_dataset, 'test')
    done = threading.Event()

    class Recorder(evaluators.BasicEvaluator):
        """Tells which steps it saw."""

        steps: list[int] = []  # noqa: RUF012

        def flush(self, step):
            self.steps.append(step)
            done.set()
            return super().flush(step)

    def bring_the_second():
        done.wait(60)
        for path in folder.glob('ckpt-2.*'):
            shutil.copy(path, tmp_path)

    thread = threading.Thread(target=bring_the_second)
    thread.start()
    found = eval_util.evaluate(
        provider, model, [Recorder], str(tmp_path), batch_size=2, num_batches=1, run_until_step=2
    )
    thread.join()
    assert Recorder.steps == [1, 2]
    assert np.isfinite(found['losses/total_loss'])
    assert {path.name for path in (tmp_path / 'eval').iterdir()} == {'metrics-1.json', 'metrics-2.json'}


def test_what_cannot_be_is_refused(trained, tone_dataset, tmp_path):
    _, _, model = trained
    provider = data.DatasetProvider(tone_dataset, 'test')
    with pytest.raises(ConfigError, match=r"mode is 'play'; it must be one of"):
        eval_util.evaluate_or_sample(provider, model, [], 'play', str(tmp_path))
    with pytest.raises(checkpoints.CheckpointError, match=str(tmp_path)):
        eval_util.evaluate(provider, model, [], str(tmp_path), run_once=True)
