"""`import ddsp.training` is enough for gin, as in ddsp 3.7.0."""

import subprocess
import sys

SCRIPT = """
import os
import gin, ddsp.training
gin.add_config_file_search_path(os.path.join(os.path.dirname(ddsp.training.__file__), 'gin'))
gin.parse_config_files_and_bindings(
    ['models/solo_instrument.gin', 'optimization/base.gin'], ['trainers.Trainer.learning_rate = 0.5'],
    skip_unknown=False)
print('MODEL', ddsp.training.models.get_model().name, gin.query_parameter('Trainer.learning_rate'))
"""


def test_a_configuration_is_parsed_by_gin_itself_after_the_import(tmp_path):
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, cwd=tmp_path)
    assert 'MODEL autoencoder 0.5' in done.stdout, done.stderr
