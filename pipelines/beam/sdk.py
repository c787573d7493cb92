"""Apache Beam, imported without the warnings that it logs about packages nobody needs here."""

from __future__ import annotations

import logging

from ddsp.errors import require

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    require('apache_beam', 'to prepare datasets')
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    # By its own name: a DirectRunner may fetch and start another engine.
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineResult
    from apache_beam.transforms.environments import SubprocessSDKEnvironment
finally:
    logging.disable(_disabled)

__all__ = ['FnApiRunner', 'PipelineOptions', 'PipelineResult', 'SubprocessSDKEnvironment', 'beam']
