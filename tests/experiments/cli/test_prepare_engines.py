"""`ddsp prepare` on another engine: what is checked first, what is passed on, what a dry run shows."""

import json

import pytest

from ddsp.errors import DDSPError

GOOGLE = [
    '--project=my-project', '--region=europe-west4', '--temp_location=gs://bucket/tmp',
    '--sdk_container_image=image',
]  # fmt: skip


@pytest.mark.parametrize(
    ('words', 'status', 'message'),
    [
        (
            ['in', '--runner', 'dataflw'],
            2,
            "'dataflw' is not one of local, portable, flink, spark, dataflow",
        ),
        (['in', '--', '--project=x'], 1, 'the local runner takes no Beam options, and --project=x was given'),
        (['--runner', 'dataflow', '--', '--project=x'], 2, "there is none before '--project=x'"),
        (['gs://b/in', '--runner', 'dataflow', '--', '--projct=x'], 1, 'Did you mean --project?'),
        (
            ['gs://b/in', '--runner', 'dataflow', '--', *GOOGLE],
            1,
            "--output is 'data', which Dataflow",
        ),
        (['in', '--output', 'gs://b/d', '--runner', 'dataflow', '--', *GOOGLE], 1, "SOURCE is 'in', which"),
        (
            ['gs://b/in', '--runner', 'dataflow', '--', *GOOGLE[:1]],
            1,
            'needs --region and --temp_location',
        ),
    ],
)
def test_what_cannot_work_is_told_before_anything_happens(workdir, ddsp, monkeypatch, words, status, message):
    monkeypatch.delenv('CLOUDSDK_COMPUTE_REGION', raising=False)
    found, out, err = ddsp('prepare', *words)
    assert (found, out) == (status, '')
    assert message in err
    assert not (workdir / 'data').exists()


def test_engine_and_its_options_reach_the_preparation(workdir, ddsp, monkeypatch):
    def prepare_dataset(sources, root, name, version, **given):
        raise DDSPError(f'asked: {sources} {root} {given["runner"]} {given["beam_options"]}')

    monkeypatch.setattr('pipelines.prepare.prepare_dataset', prepare_dataset)
    words = [
        'gs://b/in',
        '--output',
        'gs://b/d',
        '--runner',
        'dataflow',
        '--',
        *GOOGLE,
        '--max_num_workers',
        '3',
    ]
    _, _, err = ddsp('prepare', *words)
    assert f"asked: ['gs://b/in'] gs://b/d dataflow {[*GOOGLE, '--max_num_workers', '3']}" in err


def test_a_dry_run_shows_the_job_and_submits_nothing(workdir, ddsp, monkeypatch):
    pytest.importorskip('pipelines.beam.graph')
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'http://127.0.0.1:1')  # nobody is there
    words = [
        'gs://b/in/*.wav',
        '--output',
        'gs://b/d',
        '--name',
        'violin',
        '--runner',
        'dataflow',
        '--dry-run',
    ]
    status, out, err = ddsp('prepare', *words, '--json', '--', *GOOGLE)
    assert (status, err) == (0, '')
    shown = json.loads(out)
    assert shown['job'].startswith('violin-prepare-')
    assert 'MakeShards' in shown['steps']
    assert shown['workers']['autoscalingSettings']['maxNumWorkers'] == 16
    status, out, _ = ddsp('prepare', *words, '--', *GOOGLE)
    assert 'Nothing was submitted' in out
    assert 'europe-west4' in out
