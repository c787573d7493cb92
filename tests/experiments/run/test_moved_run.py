"""A training folder that moves between Keras backends: one run, one curve, one model."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ddsp import inference
from experiments.tracking import store


@pytest.mark.slow
def test_a_run_begins_on_jax_goes_on_with_tensorflow_and_ends_on_jax(workdir, dataset, tiny):
    pytest.importorskip('jax')
    bindings = [word for binding in tiny for word in ('--gin-param', binding)]
    runs = set()
    for backend, steps in (('jax', 4), ('tensorflow', 8), ('jax', 12)):
        command = [
            sys.executable, '-m', 'experiments.cli', 'train', str(dataset), *bindings, '--save-dir', 'run',
            '--experiment', 'moves', '--steps', str(steps), '--batch-size', '2', '--no-evaluate', '--json',
        ]  # fmt: skip
        env = {name: text for name, text in os.environ.items() if not name.startswith('MLFLOW_')}
        env |= {'KERAS_BACKEND': backend, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(sys.path)}
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)
        assert result.returncode == 0, result.stderr
        assert 'cannot be read' not in result.stderr
        assert 'is in' not in result.stderr  # nothing was moved aside
        runs.add(json.loads(result.stdout)['run_id'])
    (run_id,) = runs
    client = store.client()
    (run,) = store.search(client, experiments=['moves'])
    assert run.info.status == 'FINISHED'
    history = client.get_metric_history(run_id, 'losses/total_loss')
    assert [point.step for point in history] == [2, 4, 6, 8, 10, 12]
    # The bundle that JAX saved, on TensorFlow.
    bundle = inference.load_bundle(workdir / 'run' / 'bundle')
    saved = tf.train.load_checkpoint(str(workdir / 'run' / 'ckpt-12'))
    np.testing.assert_array_equal(
        bundle.model.decoder.dense_out.kernel.numpy(), saved.get_tensor('model/decoder/dense_out/kernel')
    )
    audio = bundle.synthesize({'f0_hz': np.full(25, 220.0), 'loudness_db': np.full(25, -20.0)})
    assert np.all(np.isfinite(audio))
