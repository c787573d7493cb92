"""Errors that are meant for the person who runs DDSP."""

from __future__ import annotations

import importlib
from types import ModuleType


class DDSPError(Exception):
    """Something that the user can put right.

    The message is complete by itself: it names what was wrong (argument, file or step), what was given and
    what to do. The command line prints it as it is, without a traceback, and exits with status 1.
    """


class ConfigError(DDSPError, ValueError):
    """A configuration that cannot work: an unknown name, a value out of range, rates that do not fit."""


class MissingDependencyError(DDSPError, ImportError):
    """An optional package is needed and is not installed."""


# What to tell pip for each optional module (the bounds of setup.py's extras).
_INSTALL = {
    'apache_beam': 'apache-beam>=2.70,<3',
    'tensorflow_datasets': 'tensorflow-datasets>=4.9.9,<5',
    'mlflow': 'mlflow>=3.10,<4',
    'optuna': 'optuna>=4.9,<6',
    'pydantic': 'pydantic>=2.10,<3',
    'psycopg': 'psycopg[binary]>=3.1,<4',
    'matplotlib': 'matplotlib>=3.10,<4',
    'psutil': 'psutil>=5.9',
    'crepe': 'crepe>=0.0.16,<0.1',
    'swift_f0': 'swift-f0>=0.2,<1',
    'google.cloud.dataflow': "google-cloud-dataflow-client>=0.13,<0.14' 'google-apitools>=0.5.31,<0.6' "
    "'google-auth-httplib2>=0.2,<0.3",
    'google.cloud.storage': 'google-cloud-storage>=3,<4',
    'google.auth': 'google-auth>=2.35,<3',
    'jax': 'jax>=0.7,<1',
    'kubernetes.client': 'kubernetes>=32,<38',
    'kubernetes.config': 'kubernetes>=32,<38',
    'playwright.sync_api': 'playwright>=1.50,<2',
    'requests': 'requests>=2.31,<3',
    'yaml': 'pyyaml>=6,<7',
}


def require(module: str, purpose: str) -> ModuleType:
    """Imports an optional dependency, or says how to install it.

    Args:
      module: Name to import, such as `'mlflow'`.
      purpose: What it is needed for; completes "MODULE is needed ...", such as `'to track experiments'`.

    Returns:
      The imported module.

    Raises:
      MissingDependencyError: The module is not installed; the message holds the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + '.')):
            raise  # the module is there, but something that it imports is not
        package = _INSTALL.get(module, module)
        raise MissingDependencyError(
            f"{module} is needed {purpose} and is not installed. Run: pip install '{package}'"
        ) from None
