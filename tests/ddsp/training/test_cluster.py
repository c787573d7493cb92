"""The cluster that launchers describe in the environment."""

import json
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from ddsp.errors import ConfigError
from ddsp.training import cluster

SLURM = {
    'SLURM_NTASKS': '4', 'SLURM_PROCID': '3', 'SLURM_STEP_NODELIST': 'node[08-09],other',
    'SLURM_STEP_TASKS_PER_NODE': '1(x2),2',
}  # fmt: skip
KUBERNETES = {
    'JOBSET_NAME': 'violin', 'REPLICATED_JOB_NAME': 'worker', 'JOB_INDEX': '0', 'JOB_COMPLETION_INDEX': '1',
    'WORKERS': '2',
}  # fmt: skip


def test_slurm():
    found = cluster.cluster_from_environment(SLURM)
    assert found['cluster']['worker'] == ['node08:12355', 'node09:12355', 'other:12355', 'other:12356']
    assert found['task'] == {'type': 'worker', 'index': 3}


def test_slurm_is_what_tensorflow_makes_of_it(monkeypatch):
    for name, value in {**SLURM, 'SLURM_STEP_NUM_TASKS': '4', 'SLURM_JOBID': '1'}.items():
        monkeypatch.setenv(name, value)
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        {'worker': 4}, port_base=12355, auto_set_gpu=False, gpus_per_node=2, gpus_per_task=1
    )
    found = cluster.cluster_from_environment()
    assert found['cluster'] == resolver.cluster_spec().as_dict()
    assert (found['task']['type'], found['task']['index']) == resolver.get_task_info()


def test_kubernetes():
    found = cluster.cluster_from_environment(KUBERNETES)
    assert found == {
        'cluster': {'worker': ['violin-worker-0-0.violin:12355', 'violin-worker-0-1.violin:12355']},
        'task': {'type': 'worker', 'index': 1},
    }
    with pytest.raises(ConfigError, match='WORKERS is not set'):
        cluster.cluster_from_environment({k: v for k, v in KUBERNETES.items() if k != 'WORKERS'})
    with pytest.raises(ConfigError, match='has the number 2 of 2 workers'):
        cluster.cluster_from_environment({**KUBERNETES, 'JOB_COMPLETION_INDEX': '2'})


def test_tf_config_and_vertex():
    config = {'cluster': {'worker': ['a:1', 'b:1']}, 'task': {'type': 'worker', 'index': 0}}
    assert cluster.cluster_from_environment({'TF_CONFIG': json.dumps(config)}) == config
    spec = {
        'cluster': {'workerpool0': ['chief:2222'], 'workerpool1': ['w0:2222', 'w1:2222']},
        'environment': 'cloud', 'job': '{}',
    }  # fmt: skip
    for pool, index, number in (('workerpool0', 0, 0), ('workerpool1', 0, 1), ('workerpool1', 1, 2)):
        told = json.dumps({**spec, 'task': {'type': pool, 'index': index, 'trial': ''}})
        found = cluster.cluster_from_environment({'CLUSTER_SPEC': told})
        assert found == {
            'cluster': {'worker': ['chief:2222', 'w0:2222', 'w1:2222']},
            'task': {'type': 'worker', 'index': number},
        }


def test_skypilot():
    environ = {
        'SKYPILOT_NODE_IPS': '10.0.0.1\n10.0.0.2',
        'SKYPILOT_NODE_RANK': '1',
        'SKYPILOT_NUM_NODES': '2',
    }
    assert cluster.cluster_from_environment(environ) == {
        'cluster': {'worker': ['10.0.0.1:12355', '10.0.0.2:12355']},
        'task': {'type': 'worker', 'index': 1},
    }
    with pytest.raises(ConfigError, match='SKYPILOT_NODE_RANK is not set'):
        cluster.cluster_from_environment({'SKYPILOT_NODE_IPS': '10.0.0.1\n10.0.0.2'})


def test_one_process_alone():
    for environ in ({}, {'SLURM_NTASKS': '1'}, {'SKYPILOT_NODE_IPS': '10.0.0.1'}):
        assert cluster.cluster_from_environment(environ) is None


def test_what_cannot_be_is_said(monkeypatch):
    monkeypatch.delenv('TF_CONFIG', raising=False)
    with pytest.raises(ConfigError, match='cluster_config is not JSON'):
        cluster.get_strategy(cluster_config='{no')
    with pytest.raises(ConfigError, match="strategy is 'mirored'; it must be one of auto, default, mirrored"):
        cluster.get_strategy(strategy='mirored')
    with pytest.raises(ConfigError, match='several workers need to know each other: set TF_CONFIG'):
        cluster.get_strategy(strategy='multi_worker')
    with pytest.raises(ConfigError, match=r"'x' for the tasks of the nodes; expected such as 2\(x3\),1"):
        cluster.slurm_cluster({**SLURM, 'SLURM_STEP_TASKS_PER_NODE': 'x'})


def test_a_machine_without_a_tpu_is_told_so():
    """In a process of its own: the attempt changes TensorFlow's devices."""
    code = 'from ddsp.training import cluster; cluster.get_strategy(strategy="tpu")'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert re.search(
        r"ConfigError: no TPU at 'local' \(.*\); take another strategy: auto, default, mirrored", done.stderr
    )
