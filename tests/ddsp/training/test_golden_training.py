"""Numbers recorded from ddsp 3.7.0: preprocessing, layers, metrics, postprocessing."""

import importlib.util
import json

import numpy as np
import pytest


@pytest.mark.parametrize('prefix', ['pre_', 'nn_', 'post_', 'metrics_'])
def test_recorded_numbers_agree(golden_dir, prefix):
    spec = importlib.util.spec_from_file_location('golden_replay', golden_dir / 'replay.py')
    replay = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(replay)
    cases = [
        c for c in json.loads((golden_dir / 'index.json').read_text())['cases'] if c['id'].startswith(prefix)
    ]
    assert cases
    for case in cases:
        recorded = np.load(golden_dir / case['file'])
        got = replay.evaluate(case, {key[3:]: recorded[key] for key in case['inputs']})
        got = {k if k.startswith('out') else f'out.{k}': np.asarray(v) for k, v in got.items()}
        worst, why = replay.disagreement(case, recorded, got)
        assert worst <= 1, f'{case["id"]}: {why}'
