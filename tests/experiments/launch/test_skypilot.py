"""Task files of SkyPilot, against the schema of its tasks."""

import jsonschema
import pytest
import yaml

from ddsp.errors import ConfigError
from experiments.launch.job import Job, LaunchError
from experiments.launch.skypilot import SkyPilot

TRAIN = ('train', '/data/violin', '--save-dir', '/data/runs/my violin', '--strategy', 'multi_worker')
# What a task may consist of, of the parts that are written here: from sky.utils.schemas of SkyPilot 0.14.1
# (Apache License 2.0). Where SkyPilot is installed its own schema is asked, too.
NUMBER = {'type': ['string', 'number']}
RESOURCES = {
    'infra': {'type': 'string', 'pattern': r'^(aws|azure|gcp|kubernetes|k8s|slurm|lambda|\*)(/[^/]+){0,2}$'},
    'cpus': NUMBER, 'memory': NUMBER, 'accelerators': {'type': 'string'}, 'use_spot': {'type': 'boolean'},
    'image_id': {'type': 'string'},
    'job_recovery': {
        'type': 'object',
        'properties': {
            'strategy': {'type': ['string', 'null']},
            'max_restarts_on_errors': {'type': 'integer', 'minimum': 0},
            'recover_on_exit_codes': {'type': 'array', 'items': {'type': 'integer', 'maximum': 255}},
        },
        'additionalProperties': False,
    },
}  # fmt: skip
SCHEMA = {
    'type': 'object',
    'properties': {
        'name': {'type': 'string'}, 'num_nodes': {'type': 'integer'},
        'resources': {'type': 'object', 'properties': RESOURCES, 'additionalProperties': False},
        'file_mounts': {
            'type': 'object',
            'additionalProperties': {
                'type': 'object',
                'properties': {'source': {'type': 'string'}, 'mode': {'enum': ['MOUNT', 'COPY']}},
                'additionalProperties': False,
            },
        },
        'run': {'type': 'string'},
        'envs': {
            'type': 'object', 'patternProperties': {'^[a-zA-Z_][a-zA-Z0-9_]*$': {'type': ['string', 'null']}},
            'additionalProperties': False,
        },
        'secrets': {'type': 'object', 'additionalProperties': {'type': ['string', 'null']}},
    },
    'additionalProperties': False,
}  # fmt: skip
EVERYTHING = {
    'replicas': 2, 'gpus': 1, 'accelerator': 'L4', 'spot': True, 'time_limit_minutes': 90,
    'env': {'MLFLOW_TRACKING_URI': 'https://mlflow.example'}, 'secrets': ('MLFLOW_TRACKING_PASSWORD',),
    'options': {'infra': 'gcp/europe-west4', 'mount': 'gs://bucket:/data,s3://other/models:/models'},
}  # fmt: skip


def job(**settings):
    return Job(**{'name': 'violin', 'command': TRAIN, 'image': 'registry.example/ddsp:1', **settings})


def task_of(**settings):
    return yaml.safe_load(SkyPilot().describe(job(**settings)))


@pytest.mark.parametrize('settings', [{}, EVERYTHING, {'retries': 0, 'options': {'infra': 'k8s'}}])
def test_the_task_fits_the_schema(settings):
    task = task_of(**settings)
    jsonschema.validate(task, SCHEMA)
    try:
        from sky.utils import schemas
    except ImportError:  # 1 GB of clients, which is not among the dependencies
        return
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task['resources'], schemas.get_resources_schema())


@pytest.mark.parametrize(
    'plant',
    [
        lambda task: task.update(num_node=2),
        lambda task: task.update(num_nodes='2'),
        lambda task: task['resources'].update(spot=True),
        lambda task: task['resources'].update(infra='google/europe-west4'),
        lambda task: task['resources']['job_recovery'].update(max_restarts_on_errors=-1),
        lambda task: task['envs'].update({'a b': '1'}),
        lambda task: task['secrets'].update(TOKEN=1),
    ],
)
def test_an_error_in_it_is_found(plant):
    task = task_of(**EVERYTHING)
    plant(task)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(task, SCHEMA)


def test_what_the_task_says():
    task = task_of(**EVERYTHING)
    assert task['num_nodes'] == 2
    assert task['resources']['accelerators'] == 'L4:1'
    assert task['resources']['image_id'] == 'docker:registry.example/ddsp:1'
    assert task['secrets'] == {'MLFLOW_TRACKING_PASSWORD': None}  # a name, and no value
    assert task['file_mounts']['/models'] == {'source': 's3://other/models', 'mode': 'MOUNT'}
    assert task['run'] == (
        "exec timeout 5400 ddsp train /data/violin --save-dir '/data/runs/my violin' --strategy multi_worker"
    )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'image': ''}, 'the nodes need an image with ddsp in it'),
        ({'gpus': 1}, 'SkyPilot needs the kind of the GPUs: --accelerator=L4'),
        ({'options': {'mount': '/data'}}, "mount is '/data'; expected gs://BUCKET:/path"),
        ({'options': {'mount': 'gs://bucket'}}, "mount is 'gs://bucket'; expected"),
    ],
)
def test_what_cannot_be_is_said(settings, message):
    with pytest.raises(ConfigError, match=message):
        SkyPilot().describe(job(**settings))


def test_what_to_type_instead():
    engine = SkyPilot()
    told = r'write the task by --dry-run >violin.yaml, then run: sky jobs launch --secret TOKEN violin.yaml'
    with pytest.raises(LaunchError, match=told):
        engine.submit(job(secrets=('TOKEN',)))
    for call, command in (
        (engine.state, 'queue'),
        (engine.logs, 'logs --name'),
        (engine.cancel, 'cancel --name'),
    ):
        with pytest.raises(LaunchError, match=f'sky jobs {command}'):
            call('violin')
