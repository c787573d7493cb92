"""Apache Beam pipelines: raw audio in, a published dataset out.

`pipelines.prepare.prepare_dataset` is the whole of preparation; docs/datasets.md explains it. A recording
goes through sources (found, probed, given to a split), analysis (features, examples, quality), shards (what
goes where, and making it) and publish (accepted or rejected); beam holds the graph that joins all of them.
Each wing imports only those before it: synthetic, sources, analysis, shards, publish, beam, inspect;
`options` and `records` stand below all of them, `result` and `prepare` above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.options import PrepareOptions
    from pipelines.prepare import PrepareResult, prepare_dataset

__all__ = ['PrepareOptions', 'PrepareResult', 'prepare_dataset']


def __getattr__(name: str) -> Any:
    """Loads Beam only when something that needs it is used."""
    if name in __all__:
        from pipelines import prepare

        return getattr(prepare, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
