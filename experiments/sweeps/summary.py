"""The summary of a sweep: one MLflow run with its best trial, pictures, and a page of all trials."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.reports import comparison, figures
from experiments.sweeps.spec import SweepSpec
from experiments.tracking import store
from experiments.tracking.revision import code_revision

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient

    from experiments.sweeps.runner import SweepPlace, SweepResult
    from experiments.sweeps.study import TrialQueue

_TRIALS_ON_PAGE = 20
_TRIALS_FOR_IMPORTANCE = 4


def record_summary(queue: TrialQueue, place: SweepPlace, result: SweepResult) -> str:
    """Writes pictures and page into the sweep's folder and records them in the sweep's one summary run.

    Args:
      queue: The sweep's trials.
      place: Where it lives.
      result: Its outcome.

    Returns:
      Id of the summary run; a sweep that was continued keeps the one it had.
    """
    spec, client = queue.spec, store.client()
    experiment_id = store.experiment_id(client, place.experiment)
    run_id = _summary_run(client, spec, place.experiment, experiment_id)
    for name, value in _params(spec).items():
        if client.get_run(run_id).data.params.get(name) is None:
            client.log_param(run_id, name, value)
    metrics: dict[str, float] = {
        'sweep/finished': result.finished,
        'sweep/pruned': result.pruned,
        'sweep/failed': result.failed,
    }
    if result.best_value is not None:
        metrics['sweep/best'] = result.best_value
    for name, number in metrics.items():
        client.log_metric(run_id, name, number, step=result.total)
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


def _summary_run(client: MlflowClient, spec: SweepSpec, experiment: str, experiment_id: str) -> str:
    """The sweep's summary run; created when there is none yet."""
    condition = f"tags.sweep_id = '{spec.name}' AND tags.sweep_role = 'summary'"
    found = store.search(client, condition, experiments=[experiment], limit=1)
    if found:
        return found[0].info.run_id
    tags = {**code_revision(), 'sweep_id': spec.name, 'sweep_role': 'summary'}
    return client.create_run(experiment_id, run_name=f'{spec.name} (summary)', tags=tags).info.run_id


def _params(spec: SweepSpec) -> dict[str, str]:
    """The sweep as parameters of its summary run."""
    found = {
        f'sweep/{name}': str(value)
        for name, value in dataclasses.asdict(spec).items()
        if name != 'parameters'
    }
    return found | {f'space/{name}': str(parameter) for name, parameter in spec.parameters.items()}


def _write_page(client: MlflowClient, spec: SweepSpec, place: SweepPlace, folder: pathlib.Path) -> None:
    """All trials ranked, the best with players."""
    order = [f'metrics.`{spec.objective}` {"ASC" if spec.minimize else "DESC"}']
    condition = f"tags.sweep_id = '{spec.name}' AND tags.sweep_role = 'trial'"
    runs = store.search(client, condition, experiments=[place.experiment], order=order, limit=_TRIALS_ON_PAGE)
    if runs:
        page = folder / 'compare.html'
        comparison.write_page(
            client, runs, comparison.compare(runs), page, title=f'Sweep {spec.name}: trials, best first'
        )


def draw(opened: optuna.Study, spec: SweepSpec, folder: pathlib.Path) -> list[pathlib.Path]:
    """Draws the history, the importance of the parameters and their parallel coordinates.

    Returns:
      The pictures; importance needs a few finished trials of differing value.
    """
    from optuna.trial import TrialState

    trials = [
        trial
        for trial in opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.value is not None and math.isfinite(trial.value)
    ]
    pictures = [_draw_history(trials, spec, folder / 'history.png')]
    if len(trials) > 1:
        pictures.append(_draw_parallel(trials, spec, folder / 'parallel_coordinates.png'))
    importance = _importance(opened) if len(trials) >= _TRIALS_FOR_IMPORTANCE else {}
    if importance:
        pictures.append(_draw_importance(importance, folder / 'importance.png'))
    return pictures


def _draw_history(trials: list[Any], spec: SweepSpec, path: pathlib.Path) -> pathlib.Path:
    """Objective of each trial and the best so far."""
    made, axis = figures.figure(8, 4)
    numbers = [trial.user_attrs['slot'] for trial in trials]
    values = np.array([trial.value for trial in trials], float)
    best = (np.minimum if spec.minimize else np.maximum).accumulate(values) if len(values) else values
    axis.scatter(numbers, values, color='#1f5fa8', label='trial')
    axis.step(numbers, best, color='#d9541e', where='post', label='best so far')
    axis.set(xlabel='Trial', ylabel=spec.objective)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.legend()
    return figures.save(made, path)


def _importance(opened: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the spread of the objective; empty when it cannot be told."""
    import optuna

    try:
        return optuna.importance.get_param_importances(opened)
    except (RuntimeError, ValueError, ImportError):
        return {}


def _draw_importance(importance: dict[str, float], path: pathlib.Path) -> pathlib.Path:
    """Importance as bars."""
    made, axis = figures.figure(8, 0.7 + 0.45 * len(importance))
    names = list(importance)[::-1]
    axis.barh(names, [importance[name] for name in names], color='#1f5fa8')
    axis.set(xlabel='Importance (share of the variance)', xlim=(0, 1))
    return figures.save(made, path)


def _draw_parallel(trials: list[Any], spec: SweepSpec, path: pathlib.Path) -> pathlib.Path:
    """One line per trial through its parameters to its objective; the better, the darker."""
    names = [*spec.parameters, spec.objective]
    columns, labels = zip(*(_axis_positions(trials, name, spec) for name in names), strict=True)
    values = np.array([trial.value for trial in trials], float)
    rank = np.argsort(np.argsort(values if spec.minimize else -values)) / max(1, len(values) - 1)
    made, axis = figures.figure(1.5 + 1.9 * len(names), 4.2)
    from matplotlib import colormaps

    for row in np.argsort(-rank):
        axis.plot(
            range(len(names)),
            [column[row] for column in columns],
            color=colormaps['viridis'](0.9 * rank[row]),
        )
    for place, (low, high) in enumerate(labels):
        axis.axvline(place, color='#8888', linewidth=1)
        axis.text(place, 1.04, high, ha='center', va='bottom', fontsize=9)
        axis.text(place, -0.04, low, ha='center', va='top', fontsize=9)
    axis.set_xticks(range(len(names)), [name.replace('.', '.\n') for name in names])
    axis.tick_params(axis='x', length=0, pad=18)
    axis.set(yticks=[], ylim=(-0.02, 1.02), title='Trials (dark: best)')
    axis.title.set_position((0.5, 1.0))
    axis.set_title('Trials (dark: best)', pad=24)
    for side in axis.spines.values():
        side.set_visible(False)
    return figures.save(made, path)


def _axis_positions(trials: list[Any], name: str, spec: SweepSpec) -> tuple[list[float], tuple[str, str]]:
    """Positions of the trials on one axis, from 0 to 1, and the labels of its ends."""
    raw = [trial.value if name == spec.objective else trial.params[name] for trial in trials]
    if any(isinstance(value, str) for value in raw):
        order = sorted(set(raw))
        return [order.index(value) / max(1, len(order) - 1) for value in raw], (order[0], order[-1])
    numbers = np.array(raw, float)
    parameter = spec.parameters.get(name)
    scaled = np.log(numbers) if getattr(parameter, 'log', False) else numbers
    spread = float(np.ptp(scaled)) or 1.0
    return list((scaled - scaled.min()) / spread), (f'{numbers.min():.3g}', f'{numbers.max():.3g}')
