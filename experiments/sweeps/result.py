"""Where a sweep lives, what it has come to, and its summary: one MLflow run with a page of all trials."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ddsp.errors import require
from experiments.files import local_folder
from experiments.reports import comparison
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study import ERROR, SLOT, TrialQueue
from experiments.sweeps.study_storage import optuna
from experiments.tracking import runs as tracked
from experiments.tracking import store
from experiments.tracking.run_tags import code_revision
from experiments.tracking.tracker import OUTCOMES

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TRIALS_ON_PAGE = 20
_TRIALS_FOR_IMPORTANCE = 4


@dataclasses.dataclass(frozen=True)
class SweepPlace:
    """Where a sweep lives: its training folders, its study, its MLflow experiment."""

    dataset: str
    folder: pathlib.Path
    storage: str
    experiment: str
    spec_path: pathlib.Path

    @classmethod
    def at(
        cls,
        spec: SweepSpec,
        spec_path: str | os.PathLike[str],
        dataset: str,
        *,
        folder: str | os.PathLike[str] | None = None,
        storage: str = '',
        experiment: str = store.EXPERIMENT,
    ) -> SweepPlace:
        """Fills in what was not given: `sweeps/NAME` and an SQLite file in it."""
        root = local_folder(folder or pathlib.Path('sweeps') / spec.name, '--save-dir')
        storage = storage or f'sqlite:///{root.resolve() / "study.db"}'
        return cls(dataset, root, storage, experiment, pathlib.Path(spec_path))

    def trial_folder(self, slot: int) -> pathlib.Path:
        """Training folder of a trial."""
        return self.folder / f'trial-{slot:04d}'


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The state of a sweep, with the best trial's parameters and the command that repeats it."""

    finished: int
    pruned: int
    failed: int
    total: int
    best_value: float | None
    best_params: Mapping[str, Any]
    best_run_id: str
    command: str

    @classmethod
    def of(cls, queue: TrialQueue, place: SweepPlace) -> SweepResult:
        """The result so far, other workers' trials included."""
        spec, trials = queue.spec, queue.trials()
        best = best_trial(trials, spec)
        values = spec.decode(best.params) if best else {}
        run_id = best.user_attrs.get('run_id', '') if best else ''
        if best and not run_id:  # one that began while the tracking server was away got it later
            run_id = store.run_id_of(place.trial_folder(best.user_attrs[SLOT]))
        return cls(
            finished=len(_complete(trials)),
            pruned=sum(trial.state.name == 'PRUNED' for trial in trials),
            failed=queue.given_up(),
            total=len(queue),
            best_value=best.value if best else None,
            best_params=values,
            best_run_id=run_id,
            command=train_command(spec, place, values) if best else '',
        )

    @property
    def done(self) -> bool:
        """Whether every trial has ended."""
        return self.finished + self.pruned + self.failed >= self.total


def progress_of(queue: TrialQueue) -> tuple[int, int, str]:
    """Trials that have ended, all trials, and the best value as text."""
    trials = queue.trials()
    ended = sum(trial.state.name in ('COMPLETE', 'PRUNED') for trial in trials) + queue.given_up()
    best = best_trial(trials, queue.spec)
    return ended, len(queue), '' if best is None else f'best {queue.spec.objective} {best.value:.4g}'


def first_error(queue: TrialQueue) -> str:
    """What the first failed trial reported."""
    errors = (trial.user_attrs[ERROR] for trial in queue.trials() if ERROR in trial.user_attrs)
    return next(errors, 'its workers were killed')


def best_trial(trials: list[optuna.trial.FrozenTrial], spec: SweepSpec) -> optuna.trial.FrozenTrial | None:
    """The best of the finished trials; None when there is none."""
    choose = min if spec.minimize else max
    return choose(_complete(trials), key=lambda trial: trial.values[0], default=None)


def _complete(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in trials if trial.state.name == 'COMPLETE' and trial.value is not None]


def train_command(spec: SweepSpec, place: SweepPlace, values: Mapping[str, Any]) -> str:
    """The `ddsp train` command that repeats a trial."""
    words = ['ddsp', 'train', place.dataset]
    words += ['--preset', spec.preset] if spec.preset else []
    for path in spec.gin_files:
        words += ['--gin-file', str(path)]
    for binding in spec.gin_params(values):
        words += ['--gin-param', binding]
    words += ['--steps', str(spec.steps)] if spec.steps else []
    words += ['--batch-size', str(spec.batch_size)] if spec.batch_size else []
    return shlex.join([*words, '--save-dir', f'{spec.name}-best'])


def record_summary(queue: TrialQueue, place: SweepPlace, result: SweepResult) -> str:
    """Writes pictures and page into the sweep's folder and records them in the sweep's one summary run.

    Returns the id of that run; a sweep that was continued keeps the one it had.
    """
    spec, client = queue.spec, store.client()
    run_id = _summary_run(client, spec, place.experiment)
    known = client.get_run(run_id).data.params
    for name, value in _params(spec).items():
        if name not in known:
            client.log_param(run_id, name, value)
    numbers = {
        'finished': result.finished, 'pruned': result.pruned, 'failed': result.failed, 'best':
        result.best_value,
    }  # fmt: skip
    for name, number in numbers.items():
        if number is not None:
            client.log_metric(run_id, f'sweep/{name}', number, step=result.total)
    client.set_tag(run_id, 'best_run', result.best_run_id)
    client.set_tag(run_id, 'mlflow.note.content', f'Best trial again:\n\n    {result.command}')
    folder = place.folder / 'summary'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'best.json').write_text(json.dumps(dataclasses.asdict(result), indent=2, default=str))
    draw(queue.study, spec, folder)
    _write_page(client, spec, place, folder)
    client.log_artifact(run_id, str(place.spec_path))
    client.log_artifacts(run_id, str(folder))
    client.set_terminated(run_id, 'FINISHED')
    return run_id


def end_lost_runs(queue: TrialQueue, place: SweepPlace) -> None:
    """Ends the runs of a sweep that is done which nobody is left to end.

    A worker without the folder of the one that died makes a run of its own, and what killed every worker that
    tried it is given up.
    """
    client, spec = store.client(), queue.spec
    if client.get_experiment_by_name(place.experiment) is None:  # no trial has come so far
        return
    ended = [trial for trial in queue.trials() if trial.state.name in ('COMPLETE', 'PRUNED')]
    runs = {trial.user_attrs[SLOT]: trial.user_attrs.get('run_id', '') for trial in ended}
    condition = f"{tracked.of_sweep(spec.name)} AND attributes.status = 'RUNNING'"
    for run in store.search(client, condition, experiments=[place.experiment]):
        # '': its worker could not record yet, and will. None: no worker came to an end with this trial.
        kept = runs.get(int(run.data.tags['sweep_trial']))
        if kept not in ('', run.info.run_id):
            client.set_tag(run.info.run_id, 'sweep_outcome', OUTCOMES['TrialLost'] if kept else 'given up')
            client.set_terminated(run.info.run_id, 'KILLED')


def _summary_run(client: MlflowClient, spec: SweepSpec, experiment: str) -> str:
    """The sweep's summary run; created when there is none yet."""
    experiment_id = store.experiment_id(client, experiment)
    found = store.search(client, tracked.of_sweep(spec.name, 'summary'), experiments=[experiment], limit=1)
    if found:
        return found[0].info.run_id
    tags = {**code_revision(), 'sweep_id': spec.name, 'sweep_role': 'summary'}
    return client.create_run(experiment_id, run_name=f'{spec.name} (summary)', tags=tags).info.run_id


def _params(spec: SweepSpec) -> dict[str, str]:
    """The sweep as parameters of its summary run."""
    fields = {f'sweep/{name}': str(value) for name, value in dataclasses.asdict(spec).items()}
    del fields['sweep/parameters']
    return fields | {f'space/{name}': str(parameter) for name, parameter in spec.parameters.items()}


def _write_page(client: MlflowClient, spec: SweepSpec, place: SweepPlace, folder: pathlib.Path) -> None:
    """All trials ranked, the best with players."""
    order = [f'metrics.`{spec.objective}` {"ASC" if spec.minimize else "DESC"}']
    condition = tracked.of_sweep(spec.name)
    runs = store.search(client, condition, experiments=[place.experiment], order=order, limit=_TRIALS_ON_PAGE)
    if runs:
        comparison.write_page(
            client, runs, comparison.compare(runs), folder / 'compare.html',
            title=f'Sweep {spec.name}: trials, best first',
        )  # fmt: skip


def draw(study: optuna.Study, spec: SweepSpec, folder: pathlib.Path) -> None:
    """Draws the history, the importance of the parameters and their parallel coordinates by Optuna.

    Importance needs a few finished trials of differing value.
    """
    require('matplotlib', 'to draw pictures').use('agg')  # there may be no display
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    finished = len(_complete(study.get_trials(deepcopy=False)))
    wanted: dict[str, tuple[int, Callable[..., Any]]] = {
        'history': (1, plots.plot_optimization_history),
        'parallel_coordinates': (2, plots.plot_parallel_coordinate),
        'importance': (_TRIALS_FOR_IMPORTANCE, plots.plot_param_importances),
    }
    for name, (needed, plot) in wanted.items():
        if finished < needed:
            continue
        with warnings.catch_warnings(), pyplot.rc_context():  # Optuna sets a style for all later pictures
            warnings.simplefilter('ignore')  # marked experimental in Optuna
            try:
                axes = plot(study, target_name=spec.objective)
            except (RuntimeError, ValueError, ImportError):  # trials of one value have no importance
                continue
            axes.figure.savefig(folder / f'{name}.png', dpi=110, bbox_inches='tight')
            pyplot.close(axes.figure)
