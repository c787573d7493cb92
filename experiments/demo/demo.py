"""`ddsp demo`: recordings -> dataset -> training -> evaluation -> sound, in one command.

It can be interrupted at any stage; the same command goes on. In the demo's folder lie:

  corpus/      the synthetic recordings (without --audio)
  datasets/    the dataset directory
  run/         checkpoints and the model bundle
  sound/       WAVs and pictures
  listen.html  the page that plays all of it
  results.json figures of the held-out recordings, seconds and memory of each stage
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ddsp.errors import require
from ddsp.io.dataset import Dataset, open_dataset
from ddsp.io.files import locked, write_json
from ddsp.io.progress import Progress
from experiments import crash
from experiments.files import read_json, settle

if TYPE_CHECKING:
    from ddsp.inference import Bundle
    from experiments.run.training import RunResult

Stage = Callable[[str], contextlib.AbstractContextManager[Progress]]

PRESET = 'laptop'
EXPERIMENT = 'demo'
DATASET = 'demo'
_SETTINGS, _RESULTS = 'demo.json', 'results.json'
_LISTEN = 'listen.html'
_INTERVAL_SECS = 0.5  # between looks at the memory
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
    """What a demo is made of; a folder keeps the settings that it was begun with."""

    audio: str | None = None  # recordings, a file or a folder; None synthesises a corpus
    seconds: float = 180.0  # length of the synthetic corpus
    seed: int = 0  # random seed of the corpus, the initial weights and the order of the examples
    steps: int | None = None  # of the training; None for what the preset says


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What a demo reached."""

    folder: pathlib.Path
    dataset: pathlib.Path
    bundle: pathlib.Path
    metrics: dict[str, float]  # of the held-out recordings
    sounds: dict[str, str]  # what each is -> WAV file
    pictures: dict[str, str]  # what each shows -> PNG file
    costs: dict[str, dict[str, float]]  # wall seconds, CPU seconds and peak MB of each stage when it last ran
    run_id: str

    def figures(self) -> list[tuple[str, str]]:
        """What was measured and its value with unit, as people read them."""
        return [
            (text, shown.format(self.metrics[name]))
            for name, (text, shown) in _FIGURES.items()
            if name in self.metrics
        ]

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
        return [(name, str(path)) for name, path in {**self.sounds, **self.pictures, **rest}.items()]


def run_demo(settings: DemoSettings, folder: pathlib.Path | None, stage: Stage) -> DemoResult:
    """Runs the demo, or goes on with it where it stopped.

    Args:
      settings: What to do.
      folder: Where to put everything; None for `ddsp-demo`, or `ddsp-demo-NAME` for the user's recordings.
      stage: `stage(title)` returns a context manager that yields `progress(done, total, text)`.

    Returns:
      The result, which `results.json` holds as well.

    Raises:
      DDSPError: Recordings, disk or settings cannot be used; the message says which and what to do.
    """
    name = f'-{pathlib.Path(settings.audio).stem.lower()}' if settings.audio else ''
    home = folder or pathlib.Path(f'ddsp-demo{name}')
    busy = f'{home} belongs to a demo that is running. Wait for its end, or give another --save-dir.'
    with locked(home, busy), crash.logged(home):
        settle(home / _SETTINGS, dataclasses.asdict(settings), 'a demo', '--save-dir')
        return _Demo(home, settings, stage).run()


class _Demo:
    """The stages in order. Corpus, dataset and training find by themselves what is left to do; evaluation and
    sound are done when `results.json` says so."""

    def __init__(self, home: pathlib.Path, settings: DemoSettings, stage: Stage):
        self._home, self._settings, self._stage = home, settings, stage
        self._known = read_json(home / _RESULTS)

    def run(self) -> DemoResult:
        dataset = self._prepare()
        found = self._finished(dataset)
        if found is not None:
            return found
        from ddsp import inference
        from experiments.tracking import store

        run = self._train(dataset)
        bundle = inference.load_bundle(run.bundle)
        metrics, typical = self._evaluate(run, bundle, dataset)
        sounds, pictures = self._sound(bundle, dataset, typical, metrics)
        client = store.client()
        for name in ('untrained_spectral_loss', 'share_of_untrained_loss'):
            client.log_metric(run.run_id, f'eval/{name}', metrics[name])
        client.log_artifacts(run.run_id, str(self._home / 'sound'), 'sound')
        client.log_artifact(run.run_id, str(self._home / _LISTEN))
        result = DemoResult(
            self._home, dataset.path, run.bundle, metrics, sounds, pictures, self._known['costs'], run.run_id
        )
        rows = dataclasses.asdict(result) | {'digest': dataset.digest}
        write_json(self._home / _RESULTS, json.loads(json.dumps(rows, default=str)))
        return result

    def _finished(self, dataset: Dataset) -> DemoResult | None:
        """The result of an earlier call, when nothing of it is missing."""
        known = dict(self._known)
        if known.pop('digest', '') != dataset.digest:
            return None
        paths = {'folder': self._home, 'dataset': dataset.path, 'bundle': pathlib.Path(known['bundle'])}
        made = [paths['bundle'], self._home / _LISTEN, *known['sounds'].values(), *known['pictures'].values()]
        return DemoResult(**{**known, **paths}) if all(map(os.path.exists, made)) else None

    @contextlib.contextmanager
    def _measured(self, name: str, title: str) -> Iterator[Progress]:
        """Shows a stage and notes what it cost."""
        with self._stage(title) as progress, measured() as used:
            yield progress
        costs = self._known.setdefault('costs', {})
        if used['wall_s'] > 1 or name not in costs:  # a stage that found its work done costs nothing
            costs[name] = used
            write_json(self._home / _RESULTS, self._known)

    def _prepare(self) -> Dataset:
        """The dataset of the recordings, which are synthesised when there are none."""
        from pipelines.prepare import PrepareOptions, prepare_dataset
        from pipelines.synthetic.corpus import synthesize_corpus

        recordings = self._settings.audio
        if recordings is None:
            with self._measured('corpus', 'Synthesising recordings') as progress:
                corpus = synthesize_corpus(
                    self._home / 'corpus', seconds=self._settings.seconds, seed=self._settings.seed,
                    progress=progress,
                )  # fmt: skip
            recordings = str(corpus.audio_dir)
        with self._measured('dataset', 'Preparing the dataset') as progress:
            prepared = prepare_dataset(
                [recordings], str(self._home / 'datasets'), DATASET, options=PrepareOptions(),
                progress=progress,
            )  # fmt: skip
        return open_dataset(prepared.path)

    def _train(self, dataset: Dataset) -> RunResult:
        from experiments.run.training import train_run

        with self._measured('training', 'Training') as progress:
            return train_run(
                dataset.path, preset=PRESET, save_dir=self._home / 'run', experiment=EXPERIMENT,
                run_name=self._home.name, num_steps=self._settings.steps, seed=self._settings.seed,
                progress=progress,
            )  # fmt: skip

    def _evaluate(self, run: RunResult, bundle: Bundle, dataset: Dataset) -> tuple[dict[str, float], int]:
        """Held-out figures, with the spectral loss before the training, and the number of a typical example.

        The training has evaluated the model at its end, unless the dataset has no split for that.
        """
        from ddsp import inference
        from experiments.run.evaluation import PREFIX

        with self._measured('evaluation', 'Evaluating') as progress:
            metrics = {
                name.removeprefix(PREFIX): value
                for name, value in run.metrics.items()
                if name.startswith(PREFIX)
            }
            if metrics:
                rows = json.loads((self._home / 'run' / 'media' / 'examples.json').read_text())
            else:
                report = inference.evaluate(bundle, dataset, _split(dataset), progress=progress)
                metrics, rows = dict(report.totals), report.rows
            fresh = inference.untrained(bundle, self._settings.seed)
            before = inference.evaluate(fresh, dataset, _split(dataset), progress=progress)
        metrics['untrained_spectral_loss'] = before.totals['spectral_loss']
        metrics['share_of_untrained_loss'] = metrics['spectral_loss'] / metrics['untrained_spectral_loss']
        return metrics, sorted(rows, key=lambda row: row['spectral_loss'])[len(rows) // 2]['example']

    def _sound(
        self, bundle: Bundle, dataset: Dataset, example: int, metrics: dict[str, float]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """WAVs, pictures and a page: a held-out example, its variations, and another instrument's melody."""
        from experiments.demo.sounds import make_sounds, write_page

        with self._measured('sound', 'Making sound') as progress:
            sounds, pictures = make_sounds(
                bundle, dataset, _split(dataset), example, self._home / 'sound', self._settings.seed, progress
            )
            write_page(self._home, sounds, pictures, metrics)
        return sounds, pictures


def _split(dataset: Dataset) -> str:
    """The held-out split, or the only one that there is."""
    return 'test' if dataset.splits.get('test') else next(iter(dataset.splits))


@contextlib.contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measures a block, Beam's workers included: yields `wall_s`, `cpu_s` and `peak_mb`, known at its end."""
    used: dict[str, float] = {}
    peaks, stop = [0.0], threading.Event()

    def sample() -> None:
        while True:
            peaks.append(max(peaks.pop(), _tree_mb()))
            if stop.wait(_INTERVAL_SECS):
                return

    thread = threading.Thread(target=sample, daemon=True)
    start, start_cpu = time.monotonic(), _cpu_seconds()
    thread.start()
    try:
        yield used
    finally:
        stop.set()
        thread.join()
    used['wall_s'] = round(time.monotonic() - start, 1)
    used['cpu_s'] = round(_cpu_seconds() - start_cpu, 1)
    used['peak_mb'] = round(peaks[0])


def _tree_mb() -> float:
    """Proportional set size of the process tree in MB: pages that processes share are counted once."""
    psutil = require('psutil', 'to measure memory')
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it ended between the listing and the look
            memory = process.memory_full_info()
            total += getattr(memory, 'pss', memory.rss)
    return total / 2**20


def _cpu_seconds() -> float:
    """User and system seconds of this process and of its finished children."""
    return sum(os.times()[:4])
