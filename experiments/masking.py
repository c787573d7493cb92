"""Addresses and messages without their secrets.

An address of a store may hold a password. Nothing that is shown, written to a file or handed to another
process on its command line holds one: addresses pass through `shown`, messages through `clean`.
"""

from __future__ import annotations

import os
import re
import urllib.parse

_ADDRESS = re.compile(r'[A-Za-z][\w+.-]*://[^\s\'"<>`]+')
_SECRET = re.compile(r'pass|pwd|secret|token|key|cred|auth', re.IGNORECASE)
_MASK = '***'
_SHORTEST = 4  # characters of a secret that is looked for in a text
# Variables of the environment that hold addresses or secrets.
_ADDRESSES = ('MLFLOW_TRACKING_URI', 'MLFLOW_REGISTRY_URI', 'DDSP_SWEEP_STORAGE')
_SECRETS = ('MLFLOW_TRACKING_PASSWORD', 'MLFLOW_TRACKING_TOKEN', 'PGPASSWORD')


def shown(address: str) -> str:
    """An address as it may be shown: its password and the secrets among its parameters as `***`.

    Example:
      >>> shown('postgresql://ann:secret@host/runs?sslpassword=x')
      'postgresql://ann:***@host/runs?sslpassword=***'
    """
    scheme, _, rest = address.partition('://')
    if '@' not in rest and '?' not in rest:
        return address  # without importing SQLAlchemy, which costs half a CPU second
    hidden = f'{scheme}://{_MASK}'
    try:
        from sqlalchemy.engine import make_url

        url = make_url(address)
    except Exception:  # not an address as SQLAlchemy knows them, or no SQLAlchemy
        return hidden
    if (
        url.username is not None and '@' in f'{url.host}{url.database}'
    ):  # a password in which @ was not written as %40
        tail = shown(f'{scheme}://{rest.rpartition("@")[2]}')
        return f'{hidden}@{tail.partition("://")[2]}'
    # What stands alone before the name of a web server is a token.
    token = scheme.startswith('http') and url.username is not None and url.password is None
    secret = {name: _MASK for name in url.query if _SECRET.search(name)}
    if url.password is None and not token and not secret:
        return address
    url = url.set(query={**url.query, **secret})
    url = url.set(username=_MASK) if token else url
    text = url.render_as_string(hide_password=True)
    return text.replace(urllib.parse.quote(_MASK, safe=''), _MASK)


def clean(text: str) -> str:
    """A text in which every address is as `shown` gives it, and known secrets are `***`."""
    text = _ADDRESS.sub(lambda match: shown(match[0]), text)
    known = {os.environ.get(name, '') for name in _SECRETS}
    for name in _ADDRESSES:
        known |= _secrets_of(os.environ.get(name, ''))
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, _MASK)
    return text


def _secrets_of(address: str) -> set[str]:
    """Passwords in an address, as they are written and as they are meant."""
    if '@' not in address and '?' not in address:
        return set()
    rest, _, query = address.partition('://')[2].partition('?')
    found = {rest.rpartition('@')[0].partition(':')[2], rest.partition('@')[0].partition(':')[2]}
    if '@' not in rest:
        found = set()
    for part in query.split('&'):
        name, _, value = part.partition('=')
        if _SECRET.search(urllib.parse.unquote(name)):
            found.add(value)
    found |= {urllib.parse.unquote(text) for text in found}
    return found - {''}
