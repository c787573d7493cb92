"""infra/mlflow fits the schemas, its files fit each other, and the databases are what databases.sql says."""

from __future__ import annotations

import configparser
import copy
import importlib.resources
import importlib.util
import json
import pathlib
import re

import jsonschema
import kubernetes_validate
import pytest
import sqlalchemy
import yaml

from benchmarks.tracking_server import INFRA, SECRETS, interpolated

KUBERNETES = '1.30'


@pytest.fixture
def compose():
    return yaml.safe_load((INFRA / 'compose.yaml').read_text())


@pytest.fixture
def manifests():
    """Kubernetes objects by kind and name."""
    objects = yaml.safe_load_all((INFRA / 'kubernetes.yaml').read_text())
    return {(each['kind'], each['metadata']['name']): each for each in objects}


def check_compose(content) -> None:
    files = importlib.resources.files('check_jsonschema') / 'builtin_schemas' / 'vendor'
    jsonschema.validate(content, json.loads((files / 'compose-spec.json').read_text()))


def pod_of(manifest):
    return manifest['spec']['template']['spec']


def test_the_files_are_valid(compose, manifests):
    check_compose(compose)
    assert len(manifests) == 6
    for each in manifests.values():
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    'plant',
    [
        lambda services: services['mlflow'].update(entrypont=['mlflow']),
        lambda services: services['mlflow']['depends_on'].update(databases={'condition': 'service_done'}),
        lambda services: services['databases'].update(environment='PGHOST=postgres'),
        lambda services: services['postgres']['healthcheck'].update(retry=3),
    ],
)
def test_an_error_in_the_compose_file_is_found(compose, plant):
    plant(compose['services'])
    with pytest.raises(jsonschema.ValidationError):
        check_compose(compose)


@pytest.mark.parametrize(
    ('kind', 'name', 'plant'),
    [
        ('Deployment', 'mlflow', lambda pod: pod['containers'][0].update(comand=['mlflow'])),
        ('Deployment', 'mlflow', lambda pod: pod['containers'][0]['startupProbe'].update(http={})),
        (
            'Deployment',
            'mlflow',
            lambda pod: pod['containers'][0]['env'][2].update(valueFrom={'secret': 'x'}),
        ),
        ('Job', 'mlflow-databases', lambda pod: pod['securityContext'].update(runAsNonRoot='yes')),
        ('StatefulSet', 'postgres', lambda pod: pod['containers'][0]['ports'][0].update(containerPort='pg')),
    ],
)
def test_an_error_in_the_manifests_is_found(manifests, kind, name, plant):
    manifest = copy.deepcopy(manifests[kind, name])
    plant(pod_of(manifest))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_no_file_holds_a_secret_and_all_ask_for_the_same(compose, manifests):
    texts = {path.name: path.read_text() for path in INFRA.iterdir()}
    assert set(re.findall(r'\$\{(\w+):\?\}', texts['compose.yaml'])) == set(SECRETS)
    assert set(re.findall(r'key: (\w+)\}', texts['kubernetes.yaml'])) == set(SECRETS)
    read = set(re.findall(r'\\getenv \w+ (\w+)', texts['databases.sql']))
    assert read == {'MLFLOW_DB_PASSWORD', 'SWEEPS_DB_PASSWORD'}
    readme = (INFRA.parent / 'README.md').read_text()
    assert all(name in readme for name in SECRETS)
    for name, service in compose['services'].items():
        for variable, value in service['environment'].items():
            secret = re.search('PASSWORD|SECRET', variable)
            assert not secret or re.fullmatch(r'\$\{\w+:\?\}', value), (name, variable)
    for manifest in manifests.values():
        for container in pod_of(manifest)['containers'] if 'template' in manifest['spec'] else ():
            for entry in container['env']:
                if re.search('PASSWORD|SECRET', entry['name']):
                    assert entry['valueFrom']['secretKeyRef']['name'] == 'mlflow'


def test_kubernetes_and_compose_start_the_same(compose, manifests):
    """What the other tests execute is compose.yaml."""
    services = interpolated(compose['services'], dict.fromkeys(SECRETS, 'x'))
    database = pod_of(manifests['Job', 'mlflow-databases'])['containers'][0]
    server = pod_of(manifests['Deployment', 'mlflow'])['containers'][0]
    assert database['command'] == services['databases']['command']
    assert server['command'] == services['mlflow']['entrypoint']
    keys = dict(zip(('databases', 'mlflow'), (database, server), strict=True))
    for name, container in keys.items():
        plain = {entry['name']: entry.get('value', 'x') for entry in container['env']}
        assert plain == services[name]['environment']
        (mount,) = (mount for mount in container['volumeMounts'] if mount['name'] == 'configuration')
        mounted = [volume for volume in services[name]['volumes'] if volume.startswith('./')]
        for volume in mounted:
            source, inside, _ = volume.split(':')
            assert (INFRA / source).is_file()
            assert inside == f'{mount["mountPath"]}/{source.removeprefix("./")}'
    asked = compose['services']['mlflow']['environment']
    for name in ('MLFLOW_DB_PASSWORD', 'MLFLOW_AUTH_ADMIN_PASSWORD'):
        assert f'${{{name}:?}}' in asked.values()


def test_the_manifests_fit_each_other(manifests):
    for name, kind in (('postgres', 'StatefulSet'), ('mlflow', 'Deployment')):
        service, workload = manifests['Service', name]['spec'], manifests[kind, name]['spec']
        assert service['selector'] == workload['template']['metadata']['labels']
        assert workload['selector']['matchLabels'] == service['selector']
        ports = workload['template']['spec']['containers'][0]['ports']
        assert [port['port'] for port in service['ports']] == [port['containerPort'] for port in ports]
    for manifest in manifests.values():
        if 'template' not in manifest['spec']:
            continue
        pod = pod_of(manifest)
        assert pod['securityContext']['runAsNonRoot'] is True
        assert pod['automountServiceAccountToken'] is False
        for container in pod['containers']:
            assert container['securityContext']['allowPrivilegeEscalation'] is False
            assert 'memory' in container['resources']['limits']
            claims = {claim['metadata']['name'] for claim in manifest['spec'].get('volumeClaimTemplates', [])}
            known = {volume['name'] for volume in pod.get('volumes', [])} | claims
            assert {mount['name'] for mount in container['volumeMounts']} <= known


def test_the_configuration_sets_what_mlflow_knows_and_no_password():
    package = importlib.util.find_spec('mlflow').submodule_search_locations[0]
    example = pathlib.Path(package, 'server', 'auth', 'basic_auth.ini').read_text()
    read = configparser.ConfigParser()
    read.read(INFRA / 'basic_auth.ini')
    assert set(read['mlflow']) <= set(re.findall(r'^(?:# )?(\w+) =', example, re.M))
    assert 'admin_password' not in read['mlflow']


@pytest.mark.slow
def test_each_user_reaches_their_own_databases_alone(tracking_server):
    tracking_server.make_databases()  # again: what is there stays
    databases = {'mlflow': {'mlflow', 'mlflow_auth'}, 'sweeps': {'sweeps'}}
    for user, own in databases.items():
        for name in ('mlflow', 'mlflow_auth', 'sweeps', 'postgres'):
            engine = sqlalchemy.create_engine(
                tracking_server.database(user, name).replace(':', '+psycopg:', 1)
            )
            if name not in own:
                with pytest.raises(sqlalchemy.exc.OperationalError, match='permission denied for database'):
                    engine.connect()
                continue
            with engine.connect() as connection:
                rights = 'rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls'
                query = f'SELECT {rights} FROM pg_roles WHERE rolname = current_user'
                assert connection.execute(sqlalchemy.text(query)).one() == (False,) * 5
                connection.execute(sqlalchemy.text('CREATE TABLE made_by_test (a int)'))
                connection.rollback()
            wrong = tracking_server.database(user, name).replace(f'{user}:', f'{user}:not-')
            with pytest.raises(sqlalchemy.exc.OperationalError, match='password authentication failed'):
                sqlalchemy.create_engine(wrong.replace(':', '+psycopg:', 1)).connect()
    assert [word for word in tracking_server.secrets.values() if word in tracking_server.cluster.log()] == []


@pytest.mark.slow
def test_a_statement_with_a_password_that_fails_is_not_logged(tracking_server):
    """PostgreSQL writes statements that fail into its log."""
    import subprocess

    secrets = tracking_server.secrets
    secrets['SWEEPS_DB_PASSWORD'], kept = "it's \\ a kanari3n", secrets['SWEEPS_DB_PASSWORD']
    service = tracking_server._services['databases']['environment']
    user, service['PGUSER'] = service['PGUSER'], 'mlflow'
    password, service['PGPASSWORD'] = service['PGPASSWORD'], secrets['MLFLOW_DB_PASSWORD']
    service['SWEEPS_DB_PASSWORD'] = secrets['SWEEPS_DB_PASSWORD']
    try:
        with pytest.raises(subprocess.CalledProcessError):
            tracking_server.make_databases()
        service['PGUSER'], service['PGPASSWORD'] = user, password
        tracking_server.make_databases()
        assert 'kanari3n' not in tracking_server.cluster.log()
    finally:
        secrets['SWEEPS_DB_PASSWORD'] = service['SWEEPS_DB_PASSWORD'] = kept
        service['PGUSER'], service['PGPASSWORD'] = user, password
        tracking_server.make_databases()
