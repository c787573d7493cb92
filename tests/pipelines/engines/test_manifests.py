"""infra/flink fits the schemas, and its parts fit each other."""

import copy
import importlib.resources
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions

FOLDER = pathlib.Path(__file__).parents[3] / 'infra' / 'flink'
KUBERNETES = '1.30'


def compose_schema():
    """The schema of the Compose Specification."""
    files = importlib.resources.files('check_jsonschema') / 'builtin_schemas' / 'vendor'
    return json.loads((files / 'compose-spec.json').read_text())


@pytest.fixture
def compose():
    return yaml.safe_load((FOLDER / 'compose.yaml').read_text())


@pytest.fixture
def manifests():
    """Kubernetes objects by kind and name."""
    objects = yaml.safe_load_all((FOLDER / 'kubernetes.yaml').read_text())
    return {(each['kind'], each['metadata']['name']): each for each in objects}


def containers_of(deployment):
    return {each['name']: each for each in deployment['spec']['template']['spec']['containers']}


def test_the_compose_file_is_valid(compose):
    jsonschema.validate(compose, compose_schema())


@pytest.mark.parametrize(
    'plant',
    [
        lambda file: file['services']['workers'].update(network_mod='host'),
        lambda file: file['services']['workers'].update(entrypoint={'python': 1}),
        lambda file: file['services']['taskmanager'].update(depends_on='jobmanager'),
        lambda file: file.update(sevices={}),
    ],
)
def test_an_error_in_the_compose_file_is_found(compose, plant):
    plant(compose)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, compose_schema())


def test_the_services_of_the_compose_file_fit_each_other(compose):
    services = compose['services']
    assert set(services) == {'jobmanager', 'taskmanager', 'workers'}
    for service in services.values():
        assert set(service.get('depends_on', [])) <= set(services)
        if 'FLINK_PROPERTIES' in service.get('environment', {}):
            properties = yaml.safe_load(service['environment']['FLINK_PROPERTIES'])
            assert properties['jobmanager.rpc.address'] == 'jobmanager'
    assert services['workers']['network_mode'] == 'service:taskmanager'


def test_the_manifests_are_valid(manifests):
    assert len(manifests) == 4
    for each in manifests.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    'plant',
    [
        lambda pod: pod['containers'][1].update(imgae='x'),
        lambda pod: pod['containers'][0]['ports'][0].update(containerPort='http'),
        lambda pod: pod['containers'][0]['resources'].update(limit={}),
        lambda pod: pod['volumes'][0].update(persistentVolumeClaim={'name': 'ddsp-data'}),
    ],
)
def test_an_error_in_the_manifests_is_found(manifests, plant):
    deployment = copy.deepcopy(manifests['Deployment', 'flink-taskmanager'])
    plant(deployment['spec']['template']['spec'])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_the_manifests_fit_each_other(manifests):
    configuration = manifests['ConfigMap', 'flink']['data']
    properties = yaml.safe_load(configuration['properties'])
    service = manifests['Service', properties['jobmanager.rpc.address']]['spec']
    manager = manifests['Deployment', 'flink-jobmanager']['spec']['template']
    assert service['selector'] == manager['metadata']['labels']
    ports = [port['containerPort'] for port in manager['spec']['containers'][0]['ports']]
    assert [port['port'] for port in service['ports']] == ports
    for (kind, _), each in manifests.items():
        if kind == 'Deployment':
            labels = each['spec']['template']['metadata']['labels']
            assert each['spec']['selector']['matchLabels'] == labels
            for container in containers_of(each).values():
                references = [entry.get('valueFrom') for entry in container['env']]
                for reference in filter(None, references):
                    assert reference['configMapKeyRef']['name'] == 'flink'
                    assert reference['configMapKeyRef']['key'] in configuration
    workers = containers_of(manifests['Deployment', 'flink-taskmanager'])['workers']
    assert int(workers['resources']['requests']['cpu']) == properties['taskmanager.numberOfTaskSlots']


def test_both_start_the_same_pool_beside_the_same_flink(manifests, compose):
    containers = containers_of(manifests['Deployment', 'flink-taskmanager'])
    command = containers['workers']['command']
    assert compose['services']['workers']['entrypoint'] == command
    assert importlib.util.find_spec(command[2])
    port = command[3].removeprefix('--service_port=')
    assert containers['workers']['ports'] == [{'containerPort': int(port)}]
    for name in ('compose.yaml', 'kubernetes.yaml'):
        assert f'--environment_config=localhost:{port}' in (FOLDER / name).read_text()
    flink = re.fullmatch(r'flink:([\d.]+)-java\d+', containers['taskmanager']['image'])[1]
    assert flink in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert compose['services']['taskmanager']['image'] == f'flink:${{FLINK_VERSION:-{flink}}}-java17'


def test_the_script_says_how_it_is_used_and_what_is_missing(tmp_path):
    script = ['/bin/sh', FOLDER / 'get_engines.sh']
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'sh infra/flink/get_engines.sh flink [FLINK_VERSION] [BEAM_VERSION]' in done.stderr
    for name in ('mkdir', 'sed'):
        (tmp_path / name).symlink_to(shutil.which(name))
    environ = {'PATH': str(tmp_path), 'ENGINES_FOLDER': str(tmp_path / 'jars')}
    for engine, program in (('flink', 'mvn (Debian: maven)'), ('prism', 'go (Debian: golang)')):
        done = subprocess.run([*script, engine], capture_output=True, text=True, check=False, env=environ)
        assert (done.returncode, done.stderr) == (1, f'{program.replace(" (", " is not installed (")}\n')
