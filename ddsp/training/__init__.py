"""Models and their training.

Importing the package registers every name that a gin file may hold, so that `gin.parse_config_file` works
right after `import ddsp.training`, as in ddsp 3.7.0.
"""

from ddsp.training import (
    checkpoints,
    config,
    data,
    decoders,
    encoders,
    eval_util,
    evaluators,
    metrics,
    models,
    nn,
    postprocessing,
    preprocessing,
    train_util,
    trainers,
)

config.register_all()

__all__ = [
    'checkpoints',
    'config',
    'data',
    'decoders',
    'encoders',
    'eval_util',
    'evaluators',
    'metrics',
    'models',
    'nn',
    'postprocessing',
    'preprocessing',
    'train_util',
    'trainers',
]
