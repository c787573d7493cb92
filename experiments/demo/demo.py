"""`ddsp demo`: recordings -> dataset -> training -> evaluation -> sound, in one command that can be
interrupted.

Each stage leaves what it made in the demo's folder and does not run again when that is complete:

  corpus/      the synthetic recordings (without --audio)
  datasets/    the dataset directory
  run/         checkpoints and the model bundle
  sound/       WAVs and pictures
  stages/      which stages are complete, and with what
  results.json figures of the held-out recordings, seconds and memory of each stage
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ddsp.io.dataset import open_dataset
from ddsp.io.files import locked
from ddsp.io.progress import Progress
from experiments import crash
from experiments.demo.resources import ResourceMonitor
from experiments.files import read_json, settle, write_json

if TYPE_CHECKING:
    from ddsp.inference import Bundle

Stage = Callable[[str], contextlib.AbstractContextManager[Progress]]

PRESET = 'laptop'
EXPERIMENT = 'demo'
DATASET = 'demo'
_SETTINGS = 'demo.json'
_LISTEN = 'listen.html'
# Key of the metrics: what people call it, how it is printed.
_FIGURES = {
    'spectral_loss': ('spectral loss', '{:.2f}'),
    'untrained_spectral_loss': ('spectral loss before training', '{:.2f}'),
    'share_of_untrained_loss': ('share of the loss that is left', '{:.1%}'),
    'f0_median_cents': ('median error of f0', '{:.1f} cents'),
    'f0_l1_midi': ('mean error of f0 (L1)', '{:.3f} semitones'),
    'f0_outlier_ratio': ('examples with f0 off by an octave', '{:.1%}'),
    'loudness_l1_db': ('mean error of loudness (L1)', '{:.2f} dB'),
    'examples': ('examples', '{:.0f}'),
}


@dataclasses.dataclass(frozen=True)
class DemoSettings:
    """What a demo is made of; a folder keeps to the one that it was begun with.

    Attributes:
      audio: Recordings to learn from (a file or a folder); None synthesises a corpus.
      seconds: Length of the synthetic corpus.
      seed: Of the corpus, the initial weights and the order of the examples.
      steps: Training steps; None for what the preset says.
    """

    audio: str | None = None
    seconds: float = 180.0
    seed: int = 0
    steps: int | None = None


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What a demo reached.

    Attributes:
      folder: Where everything lies.
      dataset: The dataset directory.
      bundle: The model bundle.
      metrics: Of the held-out recordings: name (with unit) to value.
      sounds: What it is to the WAV.
      pictures: What it is to the PNG.
      costs: Stage to its wall seconds, CPU seconds and peak memory in MB, of the last time that it ran.
      run_id: Of MLflow.
    """

    folder: pathlib.Path
    dataset: pathlib.Path
    bundle: pathlib.Path
    metrics: dict[str, float]
    sounds: dict[str, str]
    pictures: dict[str, str]
    costs: dict[str, dict[str, float]]
    run_id: str

    def figures(self) -> list[tuple[str, str]]:
        """What was measured and its value with unit, as people read them."""
        known = ((name, text, form) for name, (text, form) in _FIGURES.items() if name in self.metrics)
        return [(text, form.format(self.metrics[name])) for name, text, form in known]

    def cost_rows(self) -> list[tuple[str, str, str, str]]:
        """Stage, wall seconds, CPU seconds, peak MB; the last row is the sum (of memory, the most)."""
        rows = [
            (stage, f'{cost["wall_s"]:.0f}', f'{cost["cpu_s"]:.0f}', f'{cost["peak_mb"]:.0f}')
            for stage, cost in self.costs.items()
        ]
        wall, cpu = (sum(cost[name] for cost in self.costs.values()) for name in ('wall_s', 'cpu_s'))
        peak = max(cost['peak_mb'] for cost in self.costs.values())
        return [*rows, ('all', f'{wall:.0f}', f'{cpu:.0f}', f'{peak:.0f}')]

    def files(self) -> list[tuple[str, str]]:
        """What was made and where it lies."""
        rest = {'dataset': self.dataset, 'model': self.bundle, 'page to listen': self.folder / _LISTEN}
        return [
            *self.sounds.items(),
            *self.pictures.items(),
            *((name, str(path)) for name, path in rest.items()),
        ]


def default_folder(audio: str | None) -> pathlib.Path:
    """`ddsp-demo`, or `ddsp-demo-NAME` for recordings of the user's."""
    return pathlib.Path('ddsp-demo' if audio is None else f'ddsp-demo-{pathlib.Path(audio).stem.lower()}')


def run_demo(
    settings: DemoSettings,
    folder: str | os.PathLike[str] | None = None,
    *,
    stage: Stage | None = None,
) -> DemoResult:
    """Runs the demo, or goes on with it where it stopped.

    Args:
      settings: What to do.
      folder: Where to put everything; None for `default_folder`.
      stage: `stage(title)` gives a context manager that yields `progress(done, total, text)`; None shows
        nothing.

    Returns:
      The result, as also written to `results.json`.

    Raises:
      DDSPError: Recordings, disk or settings cannot be used; the message says which and what to do.
    """
    home = pathlib.Path(folder or default_folder(settings.audio))
    busy = f'{home} belongs to a demo that is running. Wait for its end, or give another --save-dir.'
    with locked(home, busy), crash.logged(home):
        settle(home / _SETTINGS, dataclasses.asdict(settings), 'a demo', '--save-dir')
        return _Demo(home, settings, stage or _silent).run()


@contextlib.contextmanager
def _silent(title: str):
    yield lambda done, total, text: None


class _Demo:
    """The stages, in order."""

    def __init__(self, home: pathlib.Path, settings: DemoSettings, stage: Stage):
        self._home = home
        self._settings = settings
        self._stage = stage
        self._typical = 0
        self._costs: dict[str, dict[str, float]] = read_json(home / 'results.json').get('costs', {})

    def run(self) -> DemoResult:
        dataset = self._dataset(self._corpus())
        run_id, bundle = self._train(dataset)
        metrics = self._evaluate(run_id, bundle, dataset)
        sounds, pictures = self._sound(run_id, bundle, dataset, metrics)
        result = DemoResult(self._home, dataset, bundle, metrics, sounds, pictures, self._costs, run_id)
        write_json(self._home / 'results.json', _plain(result))
        return result

    def _stored(
        self, name: str, inputs: dict[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What `make` returned for these inputs, now or earlier; the files that it names must still exist."""
        path = self._home / 'stages' / f'{name}.json'
        known = read_json(path)
        if known.get('inputs') == inputs and all(
            pathlib.Path(file).exists() for file in known.get('files', [])
        ):
            return known['made']
        made = make()
        path.parent.mkdir(exist_ok=True)
        files = [value for value in _leaves(made) if isinstance(value, str) and os.sep in value]
        write_json(path, {'inputs': inputs, 'made': made, 'files': files})
        return made

    @contextlib.contextmanager
    def _measured(self, name: str, title: str):
        """Shows a stage and notes what it cost."""
        with self._stage(title) as progress, ResourceMonitor() as used:
            yield progress
        if used.wall_s > 1 or name not in self._costs:  # a stage that found its work done costs nothing
            self._costs[name] = {
                'wall_s': round(used.wall_s, 1), 'cpu_s': round(used.cpu_s, 1), 'peak_mb':
                round(used.peak_mb),
            }  # fmt: skip
            write_json(self._home / 'results.json', {'costs': self._costs})

    def _corpus(self) -> str:
        if self._settings.audio is not None:
            return self._settings.audio
        from pipelines.synthetic.corpus import synthesize_corpus

        with self._measured('corpus', 'Synthesising recordings') as progress:
            corpus = synthesize_corpus(
                self._home / 'corpus',
                seconds=self._settings.seconds,
                seed=self._settings.seed,
                progress=progress,
            )
        return str(corpus.audio_dir)

    def _dataset(self, sources: str) -> pathlib.Path:
        from pipelines.prepare import PrepareOptions, prepare_dataset

        with self._measured('dataset', 'Preparing the dataset') as progress:
            prepared = prepare_dataset(
                [sources], str(self._home / 'datasets'), DATASET, options=PrepareOptions(), progress=progress
            )
        return pathlib.Path(prepared.path)

    def _train(self, dataset: pathlib.Path) -> tuple[str, pathlib.Path]:
        def make() -> dict[str, Any]:
            from experiments.run.training import train_run

            with self._measured('training', 'Training') as progress:
                run = train_run(
                    str(dataset), preset=PRESET, save_dir=str(self._home / 'run'), experiment=EXPERIMENT,
                    run_name=self._home.name, num_steps=self._settings.steps, seed=self._settings.seed,
                    progress=progress,
                )  # fmt: skip
            return {'run_id': run.run_id, 'bundle': str(run.bundle)}

        made = self._stored('training', {'dataset': open_dataset(dataset).digest}, make)
        return made['run_id'], pathlib.Path(made['bundle'])

    def _evaluate(self, run_id: str, bundle: pathlib.Path, dataset: pathlib.Path) -> dict[str, float]:
        """Held-out figures of the trained model, and the spectral loss that its weights had at the start."""

        def make() -> dict[str, Any]:
            from ddsp import inference
            from experiments.tracking import store

            with self._measured('evaluation', 'Evaluating') as progress:
                trained = inference.load_bundle(bundle)
                totals, rows = self._evaluated(trained, bundle, dataset, progress)
                fresh = inference.untrained(trained, self._settings.seed)
                before = inference.evaluate(fresh, dataset, _split(dataset), progress=progress)
            metrics = {**totals, 'untrained_spectral_loss': before.totals['spectral_loss']}
            metrics['share_of_untrained_loss'] = metrics['spectral_loss'] / metrics['untrained_spectral_loss']
            typical = sorted(rows, key=lambda row: row['spectral_loss'])[len(rows) // 2]
            client = store.client()
            for name in ('untrained_spectral_loss', 'share_of_untrained_loss'):
                client.log_metric(run_id, f'eval/{name}', metrics[name])
            return {'metrics': metrics, 'typical_example': typical['example']}

        made = self._stored('evaluation', {'run_id': run_id, 'bundle': _fingerprint(bundle)}, make)
        self._typical = made['typical_example']
        return made['metrics']

    def _evaluated(
        self, trained: Bundle, bundle: pathlib.Path, dataset: pathlib.Path, progress: Progress
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Totals and rows of the trained model: what the training found at its end, where it could."""
        from ddsp import inference
        from experiments.run.evaluation import PREFIX

        known = read_json(bundle / 'metadata.json').get('metrics', {})
        totals = {name.removeprefix(PREFIX): known[name] for name in known if name.startswith(PREFIX)}
        rows = self._home / 'run' / 'media' / 'examples.json'
        if totals and rows.exists():
            return totals, json.loads(rows.read_text())
        report = inference.evaluate(trained, dataset, _split(dataset), progress=progress)
        return report.totals, report.rows

    def _sound(
        self, run_id: str, bundle: pathlib.Path, dataset: pathlib.Path, metrics: dict[str, float]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """WAVs, pictures and a page: a held-out example, its variations, and another instrument's melody."""

        def make() -> dict[str, Any]:
            from ddsp import inference
            from experiments.demo.sounds import make_sounds, write_page
            from experiments.tracking import store

            with self._measured('sound', 'Making sound') as progress:
                made = make_sounds(
                    inference.load_bundle(bundle), dataset, _split(dataset), self._typical,
                    self._home / 'sound', seed=self._settings.seed, progress=progress,
                )  # fmt: skip
                store.client().log_artifacts(run_id, str(self._home / 'sound'), 'sound')
                page = write_page(self._home, made['sounds'], made['pictures'], metrics)
                store.client().log_artifact(run_id, str(page))
            return {**made, 'page': str(page)}

        made = self._stored('sound', {'run_id': run_id, 'bundle': _fingerprint(bundle)}, make)
        return made['sounds'], made['pictures']


def _split(dataset: pathlib.Path) -> str:
    """The held-out split; the only one where a dataset has no other."""
    splits = open_dataset(dataset).splits
    return 'test' if splits.get('test') else next(iter(splits))


def _fingerprint(bundle: pathlib.Path) -> str:
    """Of the weights of a bundle."""
    return hashlib.sha256((bundle / 'weights.weights.h5').read_bytes()).hexdigest()


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    else:
        yield tree


def _plain(result: DemoResult) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in dataclasses.asdict(result).items()
    }
