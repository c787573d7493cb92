"""The wings import each other in one direction."""

import pathlib
import re

WINGS = ['synthetic', 'sources', 'analysis', 'shards', 'publish', 'beam', 'inspect']


def test_each_wing_imports_only_those_before_it():
    root = pathlib.Path(__file__).resolve().parents[2] / 'pipelines'
    for i, wing in enumerate(WINGS):
        for path in (root / wing).glob('*.py'):
            used = set(
                re.findall(r'^ *(?:from|import) pipelines[. ](?:import )?(\w+)', path.read_text(), re.M)
            )
            assert used <= {*WINGS[: i + 1], 'options', 'records'}, path
