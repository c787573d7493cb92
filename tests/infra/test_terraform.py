"""infra/terraform: what can be known without Google Cloud."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import hcl2
import pytest
import requests

from experiments.tracking.ui import free_port

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / 'infra' / 'terraform'
HOST = 'ddsp-mlflow-1.europe-west4.run.app'
FILES = sorted(FOLDER.glob('*.tf'))
EVERYTHING = {
    'mlflow_image': 'europe-west4-docker.pkg.dev/my-project/ddsp/ddsp:1',
    'mlflow_users': ['group:music@example.org'],
    'cluster': True,
    'cluster_admins': {'office': '203.0.113.0/24'},
    'ci': {'issuer': 'https://token.actions.githubusercontent.com', 'repository': 'owner/name'},
    'budget': {'billing_account': '012345-6789AB-CDEF01', 'amount': 500, 'emails': ['a@example.org']},
}


def bare(value):
    """Without the quotes that python-hcl2 leaves around strings."""
    if isinstance(value, dict):
        return {
            bare(key): bare(each)
            for key, each in value.items()
            if key not in ('__is_block__', '__comments__')
        }
    if isinstance(value, list):
        return [bare(each) for each in value]
    return value.strip('"') if isinstance(value, str) else value


def parse(text):
    return bare(hcl2.loads(text))


def strings(value):
    """All expressions and texts below a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def declared(files):
    """Addresses of everything that may be referred to."""
    names = set()
    for file in files:
        for kind, prefix in (('resource', ''), ('data', 'data.'), ('ephemeral', 'ephemeral.')):
            names |= {
                f'{prefix}{type}.{name}'
                for block in file.get(kind, [])
                for type in block
                for name in block[type]
            }
        names |= {f'var.{name}' for block in file.get('variable', []) for name in block}
        names |= {f'local.{name}' for block in file.get('locals', []) for name in block}
    return names


def referred(files):
    """Addresses that expressions use."""
    text = '\n'.join(each for file in files for each in strings(file))
    return set(
        re.findall(
            r'(?<![\w."/-])((?:data\.|ephemeral\.)?(?:google|random)_\w+\.\w+|(?:var|local)\.\w+)', text
        )
    )


@pytest.fixture(scope='module')
def files():
    return [parse(path.read_text()) for path in FILES]


def test_every_reference_leads_somewhere(files):
    assert len(declared(files)) > 40
    assert not referred(files) - declared(files)


@pytest.mark.parametrize(
    ('right', 'wrong'),
    [
        ('var.region', 'var.regoin'),
        ('local.member[', 'local.members['),
        ('_account.all["worker"]', '_account.every["worker"]'),
    ],
)
def test_a_reference_to_nothing_is_found(files, right, wrong):
    text = (FOLDER / 'accounts.tf').read_text()
    assert right in text
    others = [file for path, file in zip(FILES, files, strict=True) if path.name != 'accounts.tf']
    planted = [*others, parse(text.replace(right, wrong, 1))]
    assert len(referred(planted) - declared(planted)) == 1


def test_every_variable_and_local_is_used(files):
    named = {name for name in declared(files) if name.startswith(('var.', 'local.'))}
    uses = referred([{key: value for key, value in file.items() if key != 'variable'} for file in files])
    assert not named - uses


def test_every_variable_and_output_is_described(files):
    for file in files:
        for block in [*file.get('variable', []), *file.get('output', [])]:
            for name, body in block.items():
                assert body['description'].endswith('.'), name


def test_the_roles_are_those_of_the_table(files):
    (found,) = (block for file in files for block in file.get('locals', []) if 'accounts' in block)
    table = (ROOT / 'infra' / 'README.md').read_text().partition('### Roles')[2]
    rows = dict(re.findall(r'^\| `(\w+)` \|(.*)\|$', table, re.M))
    assert set(rows) == set(found['accounts'])
    for name, row in rows.items():
        given = {*found['project_roles'][name], found['registry_roles'].get(name)}
        given |= {role for roles in found['bucket_roles'][name].values() for role in roles}
        for file in files:
            for kind, blocks in (
                (kind, blocks) for block in file.get('resource', []) for kind, blocks in block.items()
            ):
                for body in blocks.values():
                    if kind.endswith('_iam_member') and f'local.member["{name}"]' in str(body):
                        given.add(body['role'])
        if name in ('mlflow', 'trainer'):  # through a for_each
            given.add('roles/secretmanager.secretAccessor')
        assert set(re.findall(r'`(roles/[\w.]+)`', row)) == given - {None}, name


def test_no_account_can_do_everything(files):
    roles = {word for file in files for text in strings(file) for word in re.findall(r'roles/[\w.]+', text)}
    assert len(roles) > 10
    assert not roles & {
        'roles/owner',
        'roles/editor',
        'roles/viewer',
        'roles/storage.admin',
        'roles/iam.serviceAccountAdmin',
    }


def test_files_are_formatted(program):
    done = subprocess.run([program, 'fmt', '-check', '-diff', FOLDER], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '')


def test_a_file_that_is_not_formatted_is_found(program, tmp_path):
    (tmp_path / 'x.tf').write_text((FOLDER / 'registry.tf').read_text().replace('  location', 'location'))
    assert subprocess.run([program, 'fmt', '-check', tmp_path], capture_output=True).returncode == 3


WRONG = [
    ('project', 'My Project', 'project is an ID of 6 to 30'),
    ('region', 'europe-west4-a', 'region is such as europe-west4'),
    ('prefix', 'x', 'prefix has 2 to 15'),
    ('mlflow_image', 'docker.pkg.dev/ddsp/ddsp', 'mlflow_image is such as'),
    ('mlflow_users', ['music@example.org'], 'mlflow_users are members of IAM'),
    ('database_tier', 'db-f1-micro', 'database_tier is such as'),
    ('cluster_admins', {'all': '0.0.0.0/0'}, 'cluster_admins are networks such as'),
    ('cluster_admins', {'one': '203.0.113.1'}, 'cluster_admins are networks such as'),
    ('trainer_identity', 'trainer', 'trainer_identity is NAMESPACE/NAME'),
    ('ci', {'issuer': 'http://x', 'repository': 'a/b'}, 'ci has an issuer'),
    ('ci', {'issuer': 'https://x', 'repository': "a/b' || true"}, 'ci has an issuer'),
    ('budget', {'billing_account': '012345-6789AB-CDEF01', 'amount': 0}, 'budget has a billing_account'),
    ('budget', {'billing_account': 'mine', 'amount': 5}, 'budget has a billing_account'),
]


@pytest.mark.parametrize(('name', 'value', 'message'), WRONG)
def test_a_wrong_value_is_refused_with_its_reason(variables, name, value, message):
    done = variables('plan', '-input=false', '-no-color', **{'project': 'my-project', name: value})
    assert done.returncode == 1
    assert message in ' '.join(re.sub('[│╷╵]', ' ', done.stderr).split())


def test_right_values_are_taken_and_every_check_was_tried(variables, files):
    done = variables('plan', '-input=false', '-no-color', project='my-project', **EVERYTHING)
    assert done.returncode == 0, done.stderr
    checked = {
        name
        for file in files
        for block in file.get('variable', [])
        for name in block
        if 'validation' in block[name]
    }
    assert checked == {name for name, _, _ in WRONG}


def test_the_configuration_fits_the_providers(planner):
    done = planner('validate', '-no-color')
    assert done.returncode == 0, done.stderr


def test_what_a_provider_does_not_know_is_found(planner):
    path = planner.folder / 'wrong.tf'
    path.write_text('resource "google_storage_bucket" "wrong" {\n  name     = "b"\n  locaton = "eu"\n}\n')
    try:
        done = planner('validate', '-no-color')
    finally:
        path.unlink()
    assert 'An argument named "locaton" is not expected here' in done.stderr


@pytest.mark.parametrize('values', [{}, EVERYTHING], ids=['least', 'everything'])
def test_the_plan(planner, values):
    done = planner('plan', '-input=false', '-no-color', '-out=plan', project='my-project', **values)
    assert done.returncode == 0, done.stderr
    shown = planner('show', '-json', 'plan').stdout
    changes = json.loads(shown)['resource_changes']
    after = {each['address']: each['change']['after'] for each in changes if each['mode'] == 'managed'}
    kinds = {each['type'] for each in changes}
    assert ('google_sql_database_instance' in kinds) == ('google_container_cluster' in kinds) == bool(values)
    for name in ('data', 'artefacts'):
        bucket = after[f'google_storage_bucket.{name}']
        assert bucket['uniform_bucket_level_access'] is True
        assert bucket['public_access_prevention'] == 'enforced'
    for address, each in after.items():
        assert each.get('member') not in ('allUsers', 'allAuthenticatedUsers'), address
    if values:
        (settings,) = after['google_sql_database_instance.this[0]']['settings']
        assert settings['ip_configuration'][0]['ipv4_enabled'] is False
        assert all(
            after[f'google_sql_user.all["{name}"]'].get('password') is None for name in ('mlflow', 'sweeps')
        )
        assert not re.search(r'"result"|secret_data": *"[^"]', shown)


def audit(folder):
    """What checkov finds: identifiers of checks that failed, and those that were left out."""
    beside = ROOT / '.venv-audit' / 'bin' / 'checkov'
    checkov = beside if beside.exists() else shutil.which('checkov')
    if not checkov:
        pytest.skip('checkov is not installed; `make audit` has it in an environment of its own')
    command = [
        checkov,
        '--directory',
        folder,
        '--framework',
        'terraform',
        '--output',
        'json',
        '--quiet',
        '--skip-download',
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(done.stdout)
    found = {each['check_id'] for each in report['results']['failed_checks']}
    return found, report['summary']


@pytest.mark.slow
def test_checkov_finds_nothing():
    found, summary = audit(FOLDER)
    assert found == set()
    assert summary['passed'] >= 40
    assert summary['parsing_errors'] == 0


@pytest.mark.slow
def test_checkov_finds_what_was_planted(tmp_path):
    for path in FILES:
        shutil.copy(path, tmp_path)
    text = (FOLDER / 'storage.tf').read_text()
    (tmp_path / 'storage.tf').write_text(
        text.replace('uniform_bucket_level_access = true', 'uniform_bucket_level_access = false', 1)
    )
    text = (FOLDER / 'database.tf').read_text()
    (tmp_path / 'database.tf').write_text(text.replace('ipv4_enabled    = false', 'ipv4_enabled    = true'))
    found, _ = audit(tmp_path)
    assert {'CKV_GCP_29', 'CKV_GCP_60'} <= found


def test_what_checkov_leaves_out_has_a_reason():
    skips = [line for path in FILES for line in path.read_text().splitlines() if 'checkov:skip' in line]
    assert skips
    assert all(re.fullmatch(r' +#checkov:skip=CKV2?_GCP_\d+:\S.{20,}', line) for line in skips)


@pytest.fixture
def server(files, tmp_path):
    """MLflow, started as the container is, on a local store and folder."""
    bodies = [body for file in files for block in file.get('resource', []) for body in block.items()]
    (service,) = (body['mlflow'] for kind, body in bodies if kind == 'google_cloud_run_v2_service')
    (container,) = service['template'][0]['containers']
    port = free_port(preferred=0)
    replaced = {
        '${local.mlflow_host}': HOST,
        'gs://${google_storage_bucket.artefacts.name}/mlflow': str(tmp_path / 'artefacts'),
        '0.0.0.0': '127.0.0.1',
        '8080': str(port),
    }
    words = [*container['command'], *container['args']]
    for before, after in replaced.items():
        assert any(before in word for word in words), before
        words = [word.replace(before, after) for word in words]
    words[0] = pathlib.Path(sys.executable).with_name(words[0])
    environment = os.environ | {'MLFLOW_BACKEND_STORE_URI': f'sqlite:///{tmp_path}/mlflow.db'}
    log = (tmp_path / 'log').open('w')
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    yield f'http://127.0.0.1:{port}', process, container['startup_probe'][0]['http_get'][0]['path']
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.close()


@pytest.mark.slow
def test_the_server_runs_with_the_arguments_of_the_container(server, tmp_path):
    address, process, probe = server
    deadline = time.monotonic() + 180
    while True:
        try:
            answer = requests.get(address + probe, timeout=5)
            break
        except requests.RequestException:
            assert process.poll() is None, (tmp_path / 'log').read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
    assert answer.status_code == 200  # the probe knows no name of the server
    there = {'Host': HOST}
    assert 'machine_learning' in requests.get(address, headers=there).text
    assert requests.get(address, headers={'Host': 'elsewhere.example'}).status_code == 403
    search = f'{address}/ajax-api/2.0/mlflow/experiments/search'
    for origin, status in ((f'https://{HOST}', 200), ('https://elsewhere.example', 403)):
        asked = requests.post(search, json={'max_results': 1}, headers=there | {'Origin': origin})
        assert asked.status_code == status, origin
    file = f'{address}/api/2.0/mlflow-artifacts/artifacts/1/a.txt'
    assert requests.put(file, data=b'sound', headers=there).status_code == 200
    assert (tmp_path / 'artefacts' / '1' / 'a.txt').read_bytes() == b'sound'
