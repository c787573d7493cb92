"""Apache Beam, imported without the warnings that it logs about packages nobody needs here."""

from __future__ import annotations

import logging

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
finally:
    logging.disable(_disabled)

__all__ = ['PipelineOptions', 'beam']
