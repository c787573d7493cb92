"""The flex template: checked by what Dataflow would read."""

import copy
import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
INFRA = ROOT / 'infra'


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
