"""Where a dataset comes from: what pipeline.json says beside the options. Taken once, where a job starts."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
import time
from typing import Any

from ddsp.f0 import F0Estimator
from ddsp.version import __version__
from pipelines.options import PrepareOptions

_PACKAGES = ('numpy', 'scipy', 'soundfile', 'soxr', 'apache-beam', 'swift-f0', 'onnxruntime')


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Estimator, versions, revision and moment of a preparation; `fingerprint` is that of the dataset."""

    estimator: str
    estimator_sha256: str
    versions: dict[str, str]
    code_revision: str
    created: str
    fingerprint: str = ''

    @classmethod
    def of_this_process(cls, estimator: F0Estimator) -> Provenance:
        """What is known here. SOURCE_DATE_EPOCH sets the moment, for reproducible manifests."""
        seconds = int(os.environ.get('SOURCE_DATE_EPOCH') or time.time())
        created = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
        versions = {'ddsp': __version__, 'python': platform.python_version()} | _versions()
        weights = getattr(estimator, 'weights_sha256', '')
        return cls(estimator.name, weights, versions, _revision(), created)

    def pipeline(self, options: PrepareOptions, content_sha256: str) -> dict[str, Any]:
        """The content of pipeline.json."""
        return {
            'parameters': options.record(),
            'f0_estimator': {'name': self.estimator, 'weights_sha256': self.estimator_sha256},
            'versions': self.versions,
            'code_revision': self.code_revision,
            'fingerprint': self.fingerprint,
            'content_sha256': content_sha256,
        }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _revision() -> str:
    """The git revision of the code, where it is a checkout."""
    command = ['git', '-C', os.path.dirname(os.path.abspath(__file__)), 'rev-parse', 'HEAD']
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''
