"""Views of the MLflow UI made for this project: which columns and charts an experiment opens with.

MLflow keeps a saved view as a tag of the experiment, named `mlflow.sharedViewState.KEY`, and opens it at
`?viewStateShareKey=KEY`; its menu Views lists them. What MLflow 3.17 writes there itself is written here.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
import zlib
from collections.abc import Sequence
from typing import Any

KEY = 'ddsp'
_TAG = 'mlflow.sharedViewState.'
# Opens the UI in its model-training layout rather than in the one for language-model applications.
_LAYOUT = 'workflowType=machine_learning'
_COLUMNS = (
    'attributes.`Duration`', 'attributes.`Dataset`', 'metrics.`eval/spectral_loss`',
    'metrics.`losses/total_loss`', 'metrics.`eval/f0_l1_midi`', 'metrics.`eval/loudness_l1_db`',
    'params.`Trainer.learning_rate`', 'params.`train.batch_size`', 'params.`num_steps`',
)  # fmt: skip
# Sections of charts, in the order in which they are looked at.
_CHARTS = {
    'Spectral loss': ('losses/spectral_loss', 'held_out/spectral_loss', 'losses/total_loss'),
    'Held-out recordings': (
        'eval/spectral_loss', 'eval/loudness_l1_db', 'eval/f0_l1_midi', 'eval/f0_outlier_ratio',
    ),
    'Spectral loss by FFT size': tuple(
        f'losses/spectral_loss_{size}' for size in (2048, 1024, 512, 256, 128, 64)
    ),
    'Energy': ('energy/harmonic_db', 'energy/noise_db', 'energy/target_db'),
    'Optimisation': ('optimizer/learning_rate', 'optimizer/gradient_norm'),
    'Speed': ('speed/steps_per_sec', 'speed/audio_secs_per_sec', 'speed/data_wait_share'),
}  # fmt: skip
_RUNS_SHOWN = 20


def view_tag(
    key: str = KEY, *, condition: str = '', columns: Sequence[str] = (), first: str = ''
) -> dict[str, str]:
    """The tag of an experiment that holds a view.

    Args:
      key: Name of the view, and of its address.
      condition: Filter of the runs, in MLflow's grammar.
      columns: Names of further columns such as "params.`Trainer.learning_rate`", first in the table.
      first: Metric whose chart comes first; that of the spectral loss when not given.
    """
    sections, charts = [], []
    groups = {**({'Objective': (first,)} if first else {}), **_CHARTS}
    for number, (title, metrics) in enumerate(groups.items()):
        section = f'{KEY}-{number}'
        sections.append({
            'uuid': section, 'name': title, 'display': True, 'isReordered': True, 'deleted': False,
            'isGenerated': False,
        })  # fmt: skip
        charts += [_chart(f'{section}-{index}', section, metric) for index, metric in enumerate(metrics)]
    state = {
        'searchFilter': condition, 'orderByKey': 'attributes.start_time', 'orderByAsc': False,
        'startTime': 'ALL', 'lifecycleFilter': 'Active', 'datasetsFilter': [],
        'modelVersionFilter': 'All Runs', 'selectedColumns': list(dict.fromkeys([*columns, *_COLUMNS])),
        'columnOrder': [], 'columnWidths': {}, 'runsHiddenMode': f'FIRST_{_RUNS_SHOWN}_RUNS',
        'compareRunCharts': charts, 'compareRunSections': sections, 'viewMaximized': False,
        'runListHidden': False, 'isAccordionReordered': True, 'useGroupedValuesInCharts': True,
        'hideEmptyCharts': True, 'groupBy': None, 'groupsExpanded': {},
        'globalLineChartConfig': {'xAxisKey': 'step', 'lineSmoothness': 0, 'selectedXAxisMetricKey': ''},
    }  # fmt: skip
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    content = {'name': key, 'createdAt': 0, 'updatedAt': 0, 'state': f'deflate;{packed}'}
    return {f'{_TAG}{key}': json.dumps(content)}


def _chart(uuid: str, section: str, metric: str) -> dict[str, Any]:
    """A chart of one metric: bars where there is one value a run, else lines by step."""
    common = {
        'uuid': uuid, 'metricSectionId': section, 'runsCountToCompare': _RUNS_SHOWN, 'deleted': False,
        'isGenerated': False, 'metricKey': metric, 'displayName': metric,
    }  # fmt: skip
    if metric.startswith('eval/'):
        return {**common, 'type': 'BAR'}
    scale = 'log' if 'loss' in metric else 'linear'
    return {
        **common, 'type': 'LINE', 'selectedMetricKeys': [metric], 'lineSmoothness': 0, 'scaleType': scale,
        'xAxisScaleType': 'linear', 'range': {}, 'xAxisKey': 'step', 'selectedXAxisMetricKey': '',
        'yAxisKey': 'metric', 'yAxisExpressions': [], 'ignoreOutliers': False, 'useGlobalXaxisKey': True,
        'useGlobalLineSmoothing': True,
    }  # fmt: skip


def sweep_key(name: str) -> str:
    """Key of the view of a sweep."""
    return f'sweep-{name}'


def start_address(server: str) -> str:
    """Address of the list of experiments."""
    return f'{server}/#/experiments?{_LAYOUT}'


def view_address(server: str, experiment_id: str, key: str = KEY) -> str:
    """Address of an experiment's charts in a view."""
    query = f'{_LAYOUT}&compareRunsMode=CHART&viewStateShareKey={urllib.parse.quote(key)}'
    return f'{server}/#/experiments/{experiment_id}/runs?{query}'


def run_address(server: str, run: tuple[str, str], artifact: str = '') -> str:
    """Address of a run, given as (experiment id, run id), or of one of its artefacts, which play there."""
    pane = f'/artifacts/{urllib.parse.quote(artifact)}' if artifact else ''
    return f'{server}/#/experiments/{run[0]}/runs/{run[1]}{pane}?{_LAYOUT}'


def comparison_address(server: str, runs: Sequence[tuple[str, str]]) -> str:
    """Address of MLflow's own comparison of runs."""
    experiments, ids = (list(dict.fromkeys(column)) for column in zip(*runs, strict=True))
    query = '&'.join(
        f'{name}={urllib.parse.quote(json.dumps(values))}'
        for name, values in (('runs', ids), ('experiments', experiments))
    )
    return f'{server}/#/compare-runs?{query}&{_LAYOUT}'
