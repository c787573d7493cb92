"""Choosing an engine, checking Beam's options, following a job."""

import pytest

from ddsp.errors import ConfigError, DDSPError
from pipelines.beam import engines, portable
from pipelines.beam.jobs import cause, job_name

EMBEDDED = ['--job_endpoint=embed', '--environment_type=LOOPBACK']  # Beam's own job service, in this process


@pytest.fixture(autouse=True)
def nothing_beside_what_is_given(monkeypatch):
    monkeypatch.setattr(portable, 'flags', lambda runner, given: [])
    monkeypatch.setattr(engines, '_DEFAULT_POLL_SECS', 0.05)


@pytest.mark.parametrize(
    ('runner', 'options', 'expected'),
    [
        ('dataflw', [], "runner is 'dataflw'; it must be one of local, .*Did you mean 'dataflow'"),
        ('local', ['--region=x'], 'the local runner takes no Beam options, and --region=x was given'),
        ('portable', ['--job_endpint=x'], "no option '--job_endpint=x'. Did you mean --job_endpoint"),
        ('portable', ['--environment_type', 'LOOPBACK', '--max_workers=3'], "no option '--max_workers=3'"),
        ('portable', ['localhost:8099'], "no option 'localhost:8099'. Options are written --name=value"),
        ('dataflow', ['--max_num_workers=many'], "argument --max_num_workers: invalid int value: 'many'"),
        ('dataflow', ['--flink_master=x'], '--flink_master is an option of --runner flink, not of dataflow'),
        ('spark', ['--flink_version=1.20'], '--flink_version is an option of --runner flink, not of spark'),
        ('flink', ['--direct_num_workers=2'], '--direct_num_workers is an option of --runner local'),
        ('flink', ['--runner=SparkRunner'], '--runner is not to be given: the engine is chosen by'),
        ('flink', ['--job_name=mine'], '--job_name is not to be given: a job is named after its dataset'),
        ('dataflow', ['--dry_run=true'], '--dry_run is not to be given: --dry-run of the command'),
        ('dataflow', ['--streaming'], '--streaming is not to be given: a preparation is a batch job'),
    ],
)
def test_options_that_cannot_work_are_refused(runner, options, expected):
    with pytest.raises(ConfigError, match=expected):
        engines.check(runner, options)


def test_options_of_the_user_and_of_the_engine_come_together(monkeypatch):
    from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

    asked = []
    flags = lambda *given: asked.append(given) or ['--job_endpoint=localhost:1']  # noqa: E731
    monkeypatch.setattr(portable, 'flags', flags)
    options = engines.check('flink', ['--flink_version=1.20', '--parallelism=2'])
    assert asked == [('flink', ['--flink_version=1.20', '--parallelism=2'])]
    assert options.view_as(StandardOptions).runner == 'FlinkRunner'
    assert options.view_as(PortableOptions).job_endpoint == 'localhost:1'


def count(key):
    import apache_beam as beam

    beam.metrics.Metrics.counter('ddsp.prepare', 'made/shards').inc()
    beam.metrics.Metrics.counter('other', 'noise').inc()
    return key


def fail(key):
    raise ValueError(f'no space for {key}')


def graph(step):
    def construct(pipeline):
        import apache_beam as beam

        (
            pipeline
            | 'Names' >> beam.Create(['a', 'b'])
            | 'Spread' >> beam.Reshuffle()
            | 'Step' >> beam.Map(step)
        )

    return construct


def test_a_portable_job_is_followed_to_its_end():
    seen = []
    counters = engines.run('portable', EMBEDDED, graph(count), label='violin-prepare-1', follow=seen.append)
    assert counters == {'made/shards': 2}
    assert seen[-1] == counters


def test_a_portable_job_that_fails_is_one_sentence():
    with pytest.raises(DDSPError, match=r'the pipeline failed on portable: .*no space for a.*same') as told:
        engines.run('portable', EMBEDDED, graph(fail), label='violin-prepare-1')
    assert '\n' not in str(told.value)


def test_a_job_service_that_is_not_there_is_named():
    nowhere = ['--job_endpoint=localhost:1', '--environment_type=LOOPBACK', '--job_server_timeout=1']
    with pytest.raises(DDSPError, match=r'no job service answers at localhost:1. Start it, or'):
        engines.run('portable', nowhere, graph(count), label='violin-prepare-1')


def test_ctrl_c_cancels_a_portable_job():
    def interrupt(counters):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r'violin-prepare-1 was cancelled. Run the same'):
        engines.run('portable', EMBEDDED, graph(count), label='violin-prepare-1', follow=interrupt)


def test_what_would_be_submitted_is_described():
    shown = engines.describe('portable', EMBEDDED, graph(count), label='violin-prepare-1')
    assert shown['steps'] == ['Names', 'Spread', 'Step']
    assert (shown['runner'], shown['job']) == ('portable', 'violin-prepare-1')
    assert shown['options']['job_endpoint'] == 'embed'


def test_names_of_jobs_keep_their_hash():
    assert job_name('My_violin-1.0.0-3f2a1c') == 'my-violin-1-0-0-3f2a1c'
    long = job_name('a' * 80 + '-prepare-3f2a1c')
    assert len(long) <= 63
    assert long.endswith('-3f2a1c')


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        ('ValueError: boom\n\tat org.apache.Beam(x.java:1)\n', 'ValueError: boom'),
        (
            'java.lang.Error: x\nCaused by: received\nOSError: disk\norg.a.BError: y',
            'OSError: disk',
        ),
        ('only words.', 'only words'),
        ('', 'no reason was given'),
    ],
)
def test_the_cause_in_an_error_is_the_line_that_names_it(text, line):
    assert cause(text) == line
