"""The spec of the flex template: which image, with which parameters.

Example:
  python infra/dataflow/spec.py REGION-docker.pkg.dev/PROJECT/ddsp/beam:TAG >prepare.json
  gcloud storage cp prepare.json gs://BUCKET/templates/prepare.json
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

METADATA = pathlib.Path(__file__).with_name('metadata.json')


def build_spec(image: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """What lies on gs:// as the template; launcher and workers use the same image.

    Raises:
      google.protobuf.json_format.ParseError: A field that Dataflow does not know.
    """
    from google.cloud import dataflow_v1beta3
    from google.protobuf import json_format

    spec = {
        'image': image,
        'metadata': metadata,
        'sdkInfo': {'language': 'PYTHON'},
        'defaultEnvironment': {'sdkContainerImage': image},
    }
    json_format.ParseDict(spec, dataflow_v1beta3.ContainerSpec.pb(dataflow_v1beta3.ContainerSpec()))
    return spec


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit(f'usage: {sys.argv[0]} IMAGE')
    print(json.dumps(build_spec(sys.argv[1], json.loads(METADATA.read_text())), indent=2))
