"""What a preparation is asked to do, as it travels to workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from ddsp.io import storage
from pipelines.options import PrepareOptions
from pipelines.publish.home import CloudHome, LocalHome, open_home
from pipelines.publish.provenance import Provenance


@dataclasses.dataclass(frozen=True)
class Request:
    """One preparation.

    Attributes:
      sources: What the user named, each on its own.
      root, name, version: As in `pipelines.prepare.prepare_dataset`.
      options: How recordings become a dataset.
      provenance: Estimator, versions and the moment, as pipeline.json has them.
      lanes: Number of workers that shards are dealt out to; None: the engine deals them out itself.
      watch: Folder for progress and interruption that driver and workers see (see `pipelines.shards.watch`);
        '' where they are on different machines.
      cache: Folder where copies of remote recordings stay meanwhile; '' where there is none.
    """

    sources: tuple[str, ...]
    root: str
    name: str
    version: str | None
    options: PrepareOptions
    provenance: Provenance
    lanes: int | None = None
    watch: str = ''
    cache: str = ''

    @property
    def home(self) -> LocalHome | CloudHome:
        """Where the dataset is published."""
        return open_home(self.root, self.name)

    @property
    def recipe(self) -> str:
        """The same for the same request, today and tomorrow."""
        recipe = [self.sources, self.version, self.options.record(), self.provenance.estimator_sha256]
        return hashlib.sha256(json.dumps(recipe).encode('ascii')).hexdigest()[:16]

    @property
    def label(self) -> str:
        """A name for the job, by which the same command finds it again."""
        return f'{self.name}-prepare-{self.recipe[:8]}'

    @property
    def staging(self) -> str:
        """Address of the folder for what is made until it is published."""
        return self.home.staging(self.recipe)

    @property
    def outcome(self) -> str:
        """Address of the file that says how the job ended; here where the driver is."""
        return f'{self.watch or self.staging}/outcome-{self.recipe}.json'

    def read_outcome(self) -> dict[str, Any] | None:
        """How the job ended; None where it never came to its end."""
        text = storage.read(self.outcome)
        return dict(json.loads(text)) if text else None
