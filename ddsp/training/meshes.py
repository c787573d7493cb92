"""The devices that train one model on JAX: of one process, or of several that a launcher has started."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ddsp.errors import ConfigError, require

if TYPE_CHECKING:
    import jax

DATA, MODEL = 'data', 'model'  # axes of the mesh; batches are spread over the first, weights over none
_HEARTBEAT_SECS = 30  # after which a process that is gone ends the others, where no collective fails before


class DeviceMesh:
    """Devices of all processes, each of which works on its part of a batch; weights are on all of them.

    It stands where `tf.distribute.Strategy` stands on TensorFlow.

    Args:
      devices: Devices, those of all processes in the order of the processes.
    """

    def __init__(self, devices: Sequence[jax.Device]) -> None:
        jax = require('jax', 'to train with KERAS_BACKEND=jax')
        sharding = jax.sharding
        self.mesh = sharding.Mesh(np.array(devices).reshape(-1, 1), (DATA, MODEL))
        self.everywhere = sharding.NamedSharding(self.mesh, sharding.PartitionSpec())
        self.spread = sharding.NamedSharding(self.mesh, sharding.PartitionSpec(DATA))
        self.n_processes = len({device.process_index for device in devices})
        self.process_index = jax.process_index() if self.n_processes > 1 else 0

    @property
    def num_replicas_in_sync(self) -> int:
        """Number of devices, as in `tf.distribute.Strategy`."""
        return self.mesh.size

    @property
    def part(self) -> tuple[int, int]:
        """This process's part of each batch: its number, and the number of processes."""
        return self.process_index, self.n_processes

    @property
    def n_local(self) -> int:
        """Number of devices of this process."""
        return self.mesh.size // self.n_processes

    @contextlib.contextmanager
    def scope(self) -> Any:
        """Weights may be made anywhere on JAX."""
        yield

    def check_batch(self, batch_size: int) -> None:
        """Raises a ConfigError where a batch cannot be spread evenly."""
        if batch_size % self.mesh.size:
            n = self.mesh.size
            raise ConfigError(
                f'batch_size is {batch_size}, which {n} devices cannot share evenly; it must be a multiple '
                f'of {n}, such as {-(-batch_size // n) * n}'
            )

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's part of a batch `[batch / n_processes, ...]`, spread over its devices."""
        import jax

        return {
            key: jax.make_array_from_process_local_data(self.spread, np.asarray(value))
            for key, value in batch.items()
        }

    def replicate(self, value: Any) -> jax.Array:
        """A value that all processes have, on all devices."""
        import jax

        value = np.asarray(value)
        return jax.make_array_from_callback(value.shape, self.everywhere, lambda index: value[index])

    def run(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not on JAX."""
        raise ConfigError('Trainer.run and Trainer.psum need KERAS_BACKEND=tensorflow')

    reduce = run


def get_mesh(tpu: str, cluster: Mapping[str, Any] | None, strategy: str) -> DeviceMesh:
    """The devices for a strategy's name.

    Args:
      tpu: As in `train_util.get_strategy`.
      cluster: As in `cluster_from_environment`; None: this process alone.
      strategy: `'auto'` and `'mirrored'`: all devices of this process; `'default'`: the first one;
        `'multi_worker'`: all devices of all processes; `'tpu'`: like `'auto'`, on TPUs only.

    Raises:
      ConfigError: There is no TPU, or the processes do not find each other.
    """
    jax = require('jax', 'to train with KERAS_BACKEND=jax')
    if cluster:
        _join(cluster)
        return DeviceMesh(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))
    devices = jax.local_devices()
    if (tpu or strategy == 'tpu') and devices[0].platform != 'tpu':
        raise ConfigError(
            f'JAX finds no TPU here, but {len(devices)} {devices[0].device_kind}; install jax[tpu] on a '
            'machine that has TPUs, or take another strategy: auto, default, mirrored, multi_worker'
        )
    return DeviceMesh(devices[:1] if strategy == 'default' else devices)


def _join(cluster: Mapping[str, Any]) -> None:
    """Meets the other processes; the first one coordinates."""
    import jax

    if jax.distributed.is_initialized():
        return
    workers = [*cluster['cluster'].get('chief', []), *cluster['cluster']['worker']]
    task = cluster['task']
    index = int(task['index'])
    if 'chief' in cluster['cluster'] and task['type'] == 'worker':
        index += 1
    try:
        jax.distributed.initialize(
            workers[0], len(workers), index, heartbeat_timeout_seconds=_HEARTBEAT_SECS,
            shutdown_timeout_seconds=_HEARTBEAT_SECS,
        )  # fmt: skip
    except RuntimeError as error:
        raise ConfigError(
            f'the {len(workers)} processes do not find each other at {workers[0]}: '
            f'{str(error).strip().splitlines()[0][:200]}'
        ) from error
