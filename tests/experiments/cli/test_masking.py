"""No password is shown, however it is written."""

from __future__ import annotations

import pytest

from experiments import masking

CANARY = 'kanari3nvogel'


@pytest.mark.parametrize(
    ('address', 'shown'),
    [
        ('postgresql://ann:{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql+psycopg://ann:{}@host:5432/db', 'postgresql+psycopg://ann:***@host:5432/db'),
        ('postgres://ann:x {}@host/db', 'postgres://ann:***@host/db'),
        ('mysql+pymysql://ann:{}@host/db', 'mysql+pymysql://ann:***@host/db'),
        ('mssql+pyodbc://ann:{}@host/db?driver=ODBC+17', 'mssql+pyodbc://ann:***@host/db?driver=ODBC+17'),
        ('postgresql://ann:p@{}@host/db', 'postgresql://***@host/db'),
        ('postgresql://ann:{}@ss@host/db', 'postgresql://***@host/db'),
        ('postgresql://ann:a@{}/b@host/db', 'postgresql://***@host/db'),
        ('postgresql://ann:a/{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql://ann:a%40{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql://ann:%{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql://ann:a?{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql://ann:a#{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql://ann:a:{}@host/db', 'postgresql://ann:***@host/db'),
        ('postgresql:///db?user=ann&password={}', 'postgresql:///db?password=***&user=ann'),
        ('postgresql://host/db?PASSWORD={}', 'postgresql://host/db?PASSWORD=***'),
        ('postgresql://host/db?p%61ssword={}', 'postgresql://host/db?password=***'),
        ('postgresql://host/db?sslpassword={}&a=b', 'postgresql://host/db?a=b&sslpassword=***'),
        ('postgresql://ann:p@{}@host/db?password={}', 'postgresql://***@host/db?password=***'),
        ('postgresql://ann:{}@host:port/db', 'postgresql://***'),
        ('http://ann:{}@host:5000', 'http://ann:***@host:5000'),
        ('https://ann:a@{}@host/mlflow', 'https://***@host/mlflow'),
        ('https://{}@host/mlflow', 'https://***@host/mlflow'),
        ('http://host:5000/?access_token={}', 'http://host:5000/?access_token=***'),
        ('redis://:{}@host/0', 'redis://:***@host/0'),
    ],
)
def test_a_password_is_never_shown(address, shown):
    address = address.replace('{}', CANARY)
    assert masking.shown(address) == shown
    told = masking.clean(f"cannot use '{address}', is it right?")
    assert CANARY not in told or ' ' in address


@pytest.mark.parametrize(
    'address',
    [
        'sqlite:////home/a@b/mlflow.db', 'sqlite:////data/mlflow.db', 'http://127.0.0.1:5000',
        'http://[::1]:5000/mlflow', 'gs://bucket/a@b.wav', 'https://host/path@x?page=2', 'file:///a@b',
        'databricks://profile', 'postgresql://ann@host/db', 'models:/violin@champion', 'a@b', '',
    ],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(address):
    assert masking.shown(address) == address
    assert masking.clean(f'see {address} there') == f'see {address} there'


def test_secrets_of_the_environment_are_found_where_they_stand_alone(monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'postgresql://ann:a%2F{CANARY}@host/db')
    monkeypatch.setenv('MLFLOW_TRACKING_TOKEN', 'token-of-ann')
    told = masking.clean(f'login of ann with a/{CANARY} and token-of-ann refused')
    assert told == 'login of ann with *** and *** refused'
