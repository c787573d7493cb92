"""MLflow tracking of one training: the run, its parameters, metrics, artefacts and its end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddsp.io.files import UnsafeNameError, inside, writable, write_json
from experiments import masking
from experiments.run.params import config_to_params
from experiments.tracking import run_tags, store
from experiments.tracking.background import Repeated, load_sampler
from experiments.tracking.delivery import create_run, deliver, metric_rows
from experiments.tracking.journal import JOURNAL, Journal, Row

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ddsp.io.dataset import Dataset

_COPIES = 'logged'  # folder of what was logged from elsewhere
# How a training ends -> the status that MLflow shows.
_STATUS = {'done': 'FINISHED', 'early_stop': 'FINISHED', 'interrupted': 'KILLED', 'failed': 'FAILED'}
# How a sweep ends a trial early, by exceptions of Optuna and of experiments.sweeps.study, which only sweeps
# import.
OUTCOMES = {'TrialPruned': 'pruned', 'TrialLost': 'taken over'}


class MLflowTracker:
    """Records a training as an MLflow run; a `ddsp.training.train_util.TrainingCallback`.

    The run is the one that `save_dir/run.json` names, so a resumed training goes on in it; otherwise a new
    one. Everything is handed to a `Journal`, so a slow or absent server neither slows nor stops the training.

    Args:
      save_dir: Training folder.
      experiment: Name of the MLflow experiment.
      run_name: Name of the run; None lets MLflow choose.
      tags: Further tags.
      dataset: What is trained on; logged as the run's input.
      metrics_every: Seconds between samples of the machine's load; 0 takes none.
      buffer: When the server is down, begin all the same: the run is made when it is back.

    Raises:
      ServerDownError: The server is down, and neither is there a run to go on with nor `buffer`.
      AccessError: The server refuses the login, or does not let it write.

    Example:
      with MLflowTracker('run-1', experiment='violin') as tracker:
        tracker.log_metrics({'eval/spectral_loss': 4.2}, step=1000)
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        *,
        experiment: str = store.EXPERIMENT,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        dataset: Dataset | None = None,
        metrics_every: float = 10.0,
        buffer: bool = False,
    ):
        self.save_dir = pathlib.Path(save_dir)
        self.save_dir.mkdir(parents=True, exist_ok=True)
        self.uri = store.tracking_uri()
        self._dataset = dataset
        self._run_name = run_name or self.save_dir.resolve().name
        self._reason = 'failed'  # until a training, or close(), says otherwise
        wanted = {'experiment': experiment, 'run_name': run_name, 'tags': dict(tags or {})}
        self._journal = Journal(self.save_dir)  # first of all: from here on the run is this process's
        try:
            self.resumed, resend = self._open_run(wanted, buffer)
        except BaseException:
            self._journal.close(0)
            raise
        self._last_step = -1 if resend else self._last_recorded('training')
        self._journal.start(self._deliver, resend=resend)
        self._metrics_every = metrics_every
        self._load: Repeated | None = None
        self._heartbeat = Repeated(self._beat, run_tags.EVERY_SECS)

    # The run

    def _open_run(self, wanted: dict[str, Any], buffer: bool) -> tuple[bool, bool]:
        """Finds the run of `run.json` or creates one; returns (resumed, everything is to be sent again)."""
        known = store.read_run_file(self.save_dir)
        self.run_id = str(known.get('run_id', ''))
        self.experiment_id = str(known.get('experiment_id', ''))
        self._client: MlflowClient | None = None
        try:
            self._client = store.client(self.uri)
            if self.run_id and self._run_exists():
                self._client.update_run(self.run_id, status='RUNNING')
                return True, False
            lost, self.run_id = self.run_id, ''
            if lost:
                wanted['tags']['ddsp.continues'] = lost
            if lost or not known:
                self._write_run_file(wanted)
            self._create_run()
            return not lost and bool(known), bool(lost)
        except Exception as error:
            if access := store.refused(error):  # nobody is there to put that right later
                raise access from error
            # What is to be said waits in the journal; but a new run is begun so only by whoever has asked to.
            if not (isinstance(error, store.TrackingError) or store.is_away(error)) or not (known or buffer):
                raise
        self._client = None
        if not known:
            self._write_run_file(wanted)
        return bool(known), False

    def _create_run(self) -> None:
        """Creates the run that `run.json` describes."""
        assert self._client is not None
        wanted = store.read_run_file(self.save_dir)
        write_json(self.save_dir / 'run.json', {**wanted, 'tags': wanted['tags'] | run_tags.context_tags()})
        known = create_run(self.save_dir, self._client)
        self.run_id, self.experiment_id = known['run_id'], known['experiment_id']

    def _run_exists(self) -> bool:
        """Whether the store holds the run; a deleted one is restored."""
        assert self._client is not None
        try:
            run = self._client.get_run(self.run_id)
        except store.refusals() as error:
            if store.is_away(error) or store.refused(error):  # which says nothing about the run
                raise
            return False
        if run.info.lifecycle_stage == 'deleted':
            self._client.restore_run(self.run_id)
        self.experiment_id = run.info.experiment_id
        for key, value in run_tags.context_tags().items():
            self._client.set_tag(self.run_id, key, value)
        return True

    def _write_run_file(self, wanted: Mapping[str, Any]) -> None:
        """Notes in the training folder which run is to be made."""
        folder = {'ddsp.save_dir': str(self.save_dir.resolve())}
        content = {
            'run_id': '',
            'experiment_id': '',
            **wanted,
            'tags': {**run_tags.code_revision(), **run_tags.context_tags(), **wanted['tags'], **folder},
            'tracking_uri': masking.shown(self.uri),
            'start_time': _now(),
        }
        write_json(self.save_dir / 'run.json', content)

    def _last_recorded(self, mark: str) -> int:
        """Last step with recorded metrics of a kind; -1 when there are none."""
        rows = metric_rows(self.save_dir)
        return max((row['step'] for row in rows if row.get(mark)), default=-1)

    # What a training tells (ddsp.training.train_util.TrainingCallback)

    def on_train_begin(self, *, start_step: int, num_steps: int, save_dir: str, gin_config: str) -> None:
        """Records the resolved configuration and the dataset."""
        folder = self.save_dir / 'config'
        folder.mkdir(exist_ok=True)
        (folder / 'operative_config.gin').write_text(gin_config)
        self.log_artifact(folder / 'operative_config.gin', 'config')
        params = {**config_to_params(gin_config), 'num_steps': str(num_steps)}
        self._journal.put({'kind': 'params', 'params': params, 'step': start_step})
        if self._dataset is not None:
            self._journal.put({'kind': 'input', **dataset_row(self._dataset)})
        if self._metrics_every > 0:
            sample = load_sampler(
                lambda metrics, step: self._put_metrics(metrics, step, system=True),
                self._last_recorded('system') + 1,
            )
            self._load = Repeated(sample, self._metrics_every)

    def on_step(self, step: int) -> None:
        """Nothing: metrics come with the summaries."""

    def on_summary(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records training metrics; steps that a resumed training repeats are recorded once."""
        if step > self._last_step:
            self._last_step = step
            self._put_metrics(metrics, step, training=True)

    def on_save(self, step: int, checkpoint: str) -> None:
        """Notes which checkpoint is the newest."""
        self._journal.put({'kind': 'tags', 'tags': {'ddsp.checkpoint': str(checkpoint)}})

    def on_train_end(self, step: int, reason: str) -> None:
        """Remembers how the training ended; the run stays open for its evaluation until `close`."""
        self._reason = reason
        if self._load is not None:
            self._load.stop()

    # What comes beside the training

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Records metrics, such as those of an evaluation."""
        self._put_metrics(metrics, step)

    def log_artifact(self, path: str | os.PathLike[str], folder: str = '') -> None:
        """Records one file under `folder` of the run's artefacts.

        A file of the training folder must stay as it is; any other is copied into it.
        """
        self._journal.put({'kind': 'artifact', 'path': self._own(path), 'folder': folder})

    def log_image(self, path: str | os.PathLike[str], key: str, step: int) -> None:
        """Records a picture by step; MLflow shows it with a slider among the run's metrics."""
        self._journal.put({'kind': 'image', 'path': self._own(path), 'key': key, 'step': step})

    def log_artifacts(self, directory: str | os.PathLike[str], folder: str = '') -> None:
        """Records all files below a directory."""
        directory = pathlib.Path(directory)
        for path in sorted(path for path in directory.rglob('*') if path.is_file()):
            below = path.parent.relative_to(directory).as_posix()
            self.log_artifact(path, '/'.join(part for part in (folder, below) if part not in ('', '.')))

    def log_model(self, bundle: str | os.PathLike[str], step: int, register_as: str | None = None) -> None:
        """Records a model bundle of a step as an MLflow model named as the run, and registers it if asked."""
        row = {'kind': 'model', 'path': self._own(bundle), 'step': step, 'register_as': register_as}
        self._journal.put({**row, 'name': re.sub(r'[^\w-]+', '-', self._run_name).strip('-')})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags of the run."""
        self._journal.put({'kind': 'tags', 'tags': dict(tags)})

    def close(self, status: str | None = None, timeout: float = 60.0) -> str:
        """Ends the run.

        Args:
          status: 'FINISHED', 'KILLED' or 'FAILED'; None takes what the training reported.
          timeout: Seconds to wait for a slow server.

        Returns:
          '' or a sentence about what could not be recorded, for the user.
        """
        for repeated in filter(None, (self._load, self._heartbeat)):
            repeated.stop()
        self._journal.put({'kind': 'status', 'status': status or _STATUS[self._reason], 'time': _now()})
        left = self._journal.close(timeout)
        if left:
            count, them = (f'{left} entries', 'them') if left > 1 else ('1 entry', 'it')
            return (
                f'{count} for MLflow in {self.save_dir}/{JOURNAL} could not be recorded yet '
                f'({masking.clean(self._journal.problem)}). '
                f'`ddsp runs sync {self.save_dir}` records {them}.'
            )
        if self._journal.rejected:
            return f'MLflow refused: {"; ".join(self._journal.rejected[:3])}'
        return ''

    def __enter__(self) -> MLflowTracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            message = self.close('FINISHED' if self._reason == 'failed' else None)
        elif kind.__name__ in OUTCOMES:
            self.set_tags({'sweep_outcome': OUTCOMES[kind.__name__]})
            message = self.close('KILLED')
        else:
            message = self.close('KILLED' if issubclass(kind, KeyboardInterrupt) else 'FAILED')
        if message:
            print(f'Warning: {message}', file=sys.stderr)

    def _own(self, path: str | os.PathLike[str]) -> str:
        """Name of a file or folder in the training folder; what lies elsewhere is copied there."""
        path, root = pathlib.Path(path).resolve(), self.save_dir.resolve()
        if path.is_relative_to(root):
            with contextlib.suppress(UnsafeNameError):
                return inside(root, path.relative_to(root).as_posix(), '').relative_to(root).as_posix()
        name = re.sub(r'[^\w .-]+', '_', path.name).strip(' .') or '_'
        copy = root / _COPIES / uuid.uuid4().hex[:8] / name
        with contextlib.suppress(OSError):  # which is told when it is delivered, not to a training
            copy.parent.mkdir(parents=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
        return copy.relative_to(root).as_posix()

    def _put_metrics(self, metrics: Mapping[str, float], step: int, **marks: bool) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        self._journal.put({'kind': 'metrics', 'metrics': values, 'step': int(step), 'time': _now(), **marks})

    def _beat(self) -> None:
        """Renews the sign of life, past the journal: an old one is worth nothing."""
        if self._client is not None and self.run_id:
            for name, value in run_tags.sign().items():
                self._client.set_tag(self.run_id, name, value)

    # Delivery, in the journal's thread

    def _deliver(self, rows: list[Row]) -> None:
        """Sends rows to MLflow in order, neighbouring metrics together."""
        if self._client is None:
            self._client = store.client(self.uri)
            if self.run_id:
                self._client.update_run(self.run_id, status='RUNNING')
        if not self.run_id:
            self._create_run()
        deliver(self._client, self.run_id, rows, self.save_dir)


def dataset_row(dataset: Dataset) -> Row:
    """What MLflow shows of a dataset."""
    profile = {
        'splits': dict(dataset.splits),
        'sample_rate': dataset.sample_rate,
        'frame_rate': dataset.frame_rate,
        'example_secs': dataset.example_secs,
        'fingerprint': dataset.manifest.get('fingerprint', ''),
        'statistics': {split: _scalars(dataset.statistics(split)) for split in dataset.splits},
    }
    name = f'{dataset.name}/{dataset.version}'
    return {'name': name, 'digest': dataset.digest, 'path': writable(dataset.address), 'profile': profile}


def _scalars(statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics without the long lists of quantiles."""
    kept: dict[str, Any] = {}
    for name, value in statistics.items():
        if isinstance(value, Mapping):
            kept[name] = _scalars(value)
        elif not isinstance(value, list):
            kept[name] = value
    return kept


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
