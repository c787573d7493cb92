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
      job: Tells this job from all others.
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
    job: str
    lanes: int | None = None
    watch: str = ''
    cache: str = ''

    @property
    def home(self) -> LocalHome | CloudHome:
        """Where the dataset is published."""
        return open_home(self.root, self.name)

    @property
    def staging(self) -> str:
        """Address of the folder for what is made until it is published: the same for the same request."""
        options = self.options.record()
        recipe = json.dumps([self.sources, self.version, options, self.provenance.estimator_sha256])
        return self.home.staging(hashlib.sha256(recipe.encode('utf-8', 'surrogateescape')).hexdigest()[:16])

    @property
    def outcome(self) -> str:
        """Address of the file that says how the job ended; here where the driver is."""
        return f'{self.watch or self.staging}/outcome-{self.job}.json'

    def read_outcome(self) -> dict[str, Any] | None:
        """How the job ended; None where it never came to its end."""
        text = storage.read(self.outcome)
        return dict(json.loads(text)) if text else None
