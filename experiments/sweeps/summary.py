"""The summary of a sweep: one MLflow run with its best trial, pictures, and a page of all trials."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddsp.errors import require
from experiments.reports import comparison
from experiments.sweeps.result import SweepPlace, SweepResult
from experiments.sweeps.spec import SweepSpec
from experiments.sweeps.study import TrialQueue
from experiments.tracking import runs as tracked
from experiments.tracking import store
from experiments.tracking.revision import code_revision

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient

_TRIALS_ON_PAGE = 20
_TRIALS_FOR_IMPORTANCE = 4


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
    from optuna.trial import TrialState
    from optuna.visualization import matplotlib as plots

    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
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
