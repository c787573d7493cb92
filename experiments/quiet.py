"""A terminal without framework noise.

TensorFlow writes to file descriptor 2 from C++ while it is imported, whatever `TF_CPP_MIN_LOG_LEVEL` says;
Beam, MLflow, alembic and absl log at INFO. None of it is for the person who typed the command, so the
descriptor is redirected during the import (and replayed if that fails) and the loggers are turned down.
`--debug` shows all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

# What the frameworks and every child process read from the environment.
_ENVIRONMENT = {
    'TF_CPP_MIN_LOG_LEVEL': '3',
    'GRPC_VERBOSITY': 'ERROR',
    'GIT_PYTHON_REFRESH': 'quiet',
    'MLFLOW_LOGGING_LEVEL': 'ERROR',
    'MLFLOW_DISABLE_AGENT_HINT': 'true',
    'MLFLOW_DISABLE_TELEMETRY': 'true',
    'PYTHONWARNINGS': 'ignore',
}
_LOGGERS = (
    'absl', 'alembic', 'apache_beam', 'git', 'matplotlib', 'mlflow', 'optuna', 'psycopg', 'tensorflow',
    'urllib3',
)  # fmt: skip


@contextlib.contextmanager
def terminal(debug: bool = False) -> Iterator[None]:
    """Keeps warnings and framework logs off the terminal while a command runs; not with `debug`."""
    if debug:
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        calm_loggers()
        yield


def calm_loggers() -> None:
    """Turns the frameworks' loggers down to errors; again after an import that sets them up anew."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if 'mlflow.utils.logging_utils' in sys.modules:
        sys.modules['mlflow.utils.logging_utils'].disable_logging()  # what MLflow prints past its loggers


@contextlib.contextmanager
def native_noise_hidden() -> Iterator[None]:
    """Redirects file descriptor 2, which C++ writes to; an exception replays what was hidden."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no descriptor 2 at all, as under some service managers
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            _restore(saved)
            hidden.seek(0)
            sys.stderr.write(hidden.read().decode(errors='replace'))
            raise
        else:
            _restore(saved)


def _restore(saved: int) -> None:
    """Gives file descriptor 2 back to where it pointed before."""
    with contextlib.suppress(ValueError, OSError):
        sys.stderr.flush()
    os.dup2(saved, 2)
    os.close(saved)


def load_keras() -> None:
    """Imports Keras and its backend and touches the devices once, when the rest of the noise comes."""
    if os.environ.get('TF_CPP_MIN_LOG_LEVEL') != '3':  # --debug
        import keras

        return
    with native_noise_hidden():
        import keras

        if keras.backend.backend() == 'tensorflow':
            import tensorflow as tf

            tf.config.list_physical_devices()
            tf.get_logger().setLevel('ERROR')
            tf.autograph.set_verbosity(0)
    calm_loggers()
