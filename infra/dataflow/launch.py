"""What the launcher of the flex template runs: `ddsp prepare` as parameters of a template.

The launcher adds Beam's options, with --template_location among them: the job is written there, and submitted
by the service. Nobody waits here; the outcome lies beside the dataset.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ddsp.errors import ConfigError, DDSPError
from pipelines.beam import dataflow, graph, jobs
from pipelines.beam.sdk import PipelineOptions
from pipelines.options import PrepareOptions
from pipelines.prepare import make_request


def main(argv: Sequence[str]) -> None:
    """Writes the job of a preparation for the service."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ('sources', 'output', 'name'):
        parser.add_argument(f'--{name}', required=True)
    parser.add_argument('--version', default='')
    parser.add_argument('--options', default='')
    given, beam_options = parser.parse_known_args(argv)
    try:
        asked = json.loads(given.options or '{}')
        how = PrepareOptions(**asked)
    except (ValueError, TypeError) as error:
        raise ConfigError(f'options is {given.options!r}: {error}') from None
    sources = given.sources.split(',')
    options = PipelineOptions(beam_options)
    dataflow.complete(options)
    dataflow.check_places(given.output, sources)
    request = make_request(sources, given.output, given.name, given.version or None, how, 'dataflow')
    jobs.assemble(options, lambda pipeline: graph.build(pipeline, request)).run()


if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except DDSPError as error:
        sys.exit(f'Error: {error}')
