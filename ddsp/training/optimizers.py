"""Adam with rates for parts of a model, schedules of the learning rate, and averages of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from ddsp.errors import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf

SCHEDULES = ('exponential', 'cosine', 'constant')


class ScaledAdam(keras.optimizers.Adam):
    """Adam with a learning rate for each part of a model, whose steps can be refused.

    Adam's step does not depend on the size of the gradient: every one of a reverb's thousands of taps moves
    by the learning rate, so at a rate that suits a network the first steps turn the impulse response into
    loud noise.

    Args:
      learning_rate: A schedule.
      scales: A part of a variable's path, such as `'reverb'`, to the factor of its learning rate.
      **kwargs: Passed to Keras' Adam.
    """

    def __init__(self, learning_rate: Any, scales: Mapping[str, float] | None = None, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self._scales = dict(scales or {})
        self._share: Any = 1.0  # of a step: all of it, or nothing

    def apply_if(self, wanted: Any, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """`apply`, or nothing: weights, momenta and `iterations` stay as they are, bit for bit.

        No branch: within a replica of `tf.distribute`, a condition cannot hold what replicas do together.

        Args:
          wanted: Boolean scalar, the same on all replicas.
          gradients: One for each variable; they may hold anything when the step is not wanted.
          variables: The model's.
        """
        self._share = ops.cast(wanted, 'float32')
        try:
            self.apply([ops.where(wanted, g, 0.0) for g in gradients], variables)
            self._iterations.assign_sub(1 - ops.cast(wanted, self._iterations.dtype))
        finally:
            self._share = 1.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update (Kingma and Ba 2015, algorithm 1, in the order of its section 2)."""
        # What comes in may be the backend's variable, which has no path; Keras' own is at the same place.
        i = self._get_variable_index(variable)
        parts = self._trainable_variables[i].path.split('/')
        for part, scale in self._scales.items():
            if part in parts:
                learning_rate = learning_rate * scale
        step = ops.cast(self.iterations + 1, 'float32')
        rate = learning_rate * ops.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        mean, square = self._momentums[i], self._velocities[i]
        # A share of nothing adds zeros, which costs no pass over the weights.
        self.assign_add(mean, (gradient - mean) * (self._share * (1.0 - self.beta_1)))
        self.assign_add(square, (ops.square(gradient) - square) * (self._share * (1.0 - self.beta_2)))
        self.assign_sub(variable, mean * (rate * self._share) / (ops.sqrt(square) + self.epsilon))


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0 to a schedule.

    At its start a model is much louder than the recordings. Adam's first steps at the full rate overshoot:
    amplitudes fall to where `exp_sigmoid` has no gradient left, and the harmonic part never comes back.

    Args:
      schedule: Schedule after the warm-up.
      steps: Length of the warm-up in steps.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int) -> None:
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step."""
        share = keras.ops.minimum(1.0, (keras.ops.cast(step, 'float32') + 1.0) / self.steps)
        return self.schedule(step) * share

    def get_config(self) -> dict[str, Any]:
        """Arguments."""
        return {'schedule': self.schedule, 'steps': self.steps}


def make_schedule(
    kind: str, learning_rate: float, decay_steps: int, decay_rate: float, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate by step.

    Args:
      kind: `'exponential'`: `learning_rate * decay_rate ** (step / decay_steps)`; `'cosine'`: half a cosine
        from `learning_rate` to `learning_rate * decay_rate` in `decay_steps`, then constant; `'constant'`.
      learning_rate: Learning rate at step 0.
      decay_steps: See `kind`.
      decay_rate: See `kind`.
      warmup_steps: Steps in which the rate rises from nothing; 0: none.

    Raises:
      ConfigError: Another kind.

    Example:
      >>> schedule = make_schedule('exponential', 0.1, decay_steps=1000, decay_rate=0.5, warmup_steps=0)
      >>> [round(float(schedule(step)), 4) for step in (0, 1000, 2000)]
      [0.1, 0.05, 0.025]
    """
    schedules = keras.optimizers.schedules
    schedule: keras.optimizers.schedules.LearningRateSchedule
    if kind == 'exponential':
        schedule = schedules.ExponentialDecay(learning_rate, decay_steps, decay_rate)
    elif kind == 'cosine':
        schedule = schedules.CosineDecay(learning_rate, decay_steps, alpha=decay_rate)
    elif kind == 'constant':
        schedule = schedules.ExponentialDecay(learning_rate, 1, 1.0)
    else:
        raise ConfigError(f'Trainer.lr_schedule is {kind!r}; it must be one of {", ".join(SCHEDULES)}')
    return WarmUp(schedule, warmup_steps) if warmup_steps else schedule


class WeightAverages:
    """Averages of a model's weights: `average += (1 - decay) (weight - average)` after every step.

    The decay of step n is `min(decay, (1 + n) / (10 + n))`, so that the first weights are soon forgotten.

    Args:
      strategy: Distribution strategy of the training.
      decay: Between 0 and 1; `None`: no averages, and all methods do nothing.
    """

    def __init__(self, strategy: Any, decay: float | None) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ConfigError(f'Trainer.average_decay is {decay}; it must lie between 0 and 1')
        self.strategy = strategy
        self.decay = decay
        self.variables: list[Any] = []
        self._weights: list[Any] = []
        self._in_model = False

    def build(self, weights: Sequence[Any]) -> None:
        """Starts the averages at the current weights."""
        if self.decay is not None:
            self._weights = list(weights)
            self.variables = [_variable(w.value) for w in weights]

    def after(self, step: Any, averages: Sequence[Any], weights: Sequence[Any]) -> list[Any]:
        """The averages after a step that has made these weights."""
        if self.decay is None:
            return []
        return [self._after(step, *pair) for pair in zip(averages, weights, strict=True)]

    def _after(self, step: Any, average: Any, weight: Any) -> Any:
        n = ops.cast(step, 'float32')
        decay = ops.minimum(self.decay, (1.0 + n) / (10.0 + n))
        return decay * average + (1.0 - decay) * weight

    def update(self, step: tf.Tensor, done: tf.Tensor) -> None:
        """On TensorFlow: the same in cross-replica context, unless the step was refused."""
        if not self.variables:
            return

        def update(average: tf.Variable, value: tf.Tensor) -> tf.Operation:
            return average.assign(ops.where(done, self._after(step, average, value), average))

        for average, weight in zip(self.variables, self._weights, strict=True):
            self.strategy.extended.update(average, update, args=(weight.value,))

    @contextlib.contextmanager
    def in_model(self, wanted: bool) -> Iterator[None]:
        """Within, the model has the averages, or the weights that are being trained."""
        before = self._in_model
        self.put_in_model(wanted)
        try:
            yield
        finally:
            self.put_in_model(before)

    def put_in_model(self, wanted: bool) -> None:
        """Swaps averages and weights, unless the model already has the wanted ones."""
        if not self.variables or wanted == self._in_model:
            return
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = ops.copy(ops.convert_to_tensor(average))
            average.assign(ops.copy(ops.convert_to_tensor(weight)))
            weight.assign(kept)
        self._in_model = wanted

    def forget(self) -> None:
        """Notes that a checkpoint is about to overwrite weights and averages."""
        self._in_model = False


def _variable(value: Any) -> Any:
    """A variable that is not trained; on TensorFlow its own, which strategies update."""
    if keras.backend.backend() != 'tensorflow':
        return keras.Variable(value, trainable=False)
    import tensorflow as tf

    return tf.Variable(value, trainable=False)
