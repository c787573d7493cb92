"""Apache Beam, imported without what it does not need here: 40 % of the start of a process.

Beam imports pandas and pymongo where they are installed. Who needs them finds them afterwards; a program with
DataFrames of Beam imports apache_beam before this package. Warnings about other packages are left out.
"""

from __future__ import annotations

import logging
import sys

from ddsp.errors import require

_NOT_NEEDED = [name for name in ('pandas', 'pymongo') if name not in sys.modules]
_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)
sys.modules.update(dict.fromkeys(_NOT_NEEDED))  # type: ignore[arg-type]
try:
    require('apache_beam', 'to prepare datasets')
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    # By its own name: a DirectRunner may fetch and start another engine.
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.runners.runner import PipelineResult
    from apache_beam.transforms.environments import SubprocessSDKEnvironment
finally:
    for _name in _NOT_NEEDED:
        sys.modules.pop(_name, None)
    logging.disable(_disabled)

__all__ = ['FnApiRunner', 'PipelineOptions', 'PipelineResult', 'SubprocessSDKEnvironment', 'beam']
