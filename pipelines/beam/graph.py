"""The graph of a preparation, for any engine: recordings in, a published dataset out.

    Sources -> Divide -> Find -> FoundByPath -> Probe -> ByLikeness -> Duplicates -> Totals -> Plan
    recordings, Plan -> Assign -> ByLane -> MakeShards -> what became of all inputs -> Rows -> Publish

What is shuffled are paths, headers and hashes, never audio. Inputs and results go through storage: a folder
that all workers see, or a bucket. Nothing is kept in the driver; how a job ended is in its outcome file.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.beam import steps
from pipelines.beam.dataflow import hints
from pipelines.beam.request import Request
from pipelines.beam.sdk import beam
from pipelines.shards.plan import Failure, Totals
from pipelines.sources.stages import Probed, Rejected


def build(pipeline: beam.Pipeline, request: Request) -> None:
    """Adds all steps of a preparation to a pipeline."""
    recordings, rejected, failures = _look(pipeline, request)
    totals = (
        (recordings, rejected, failures)
        | 'AllInputs' >> beam.Flatten()
        | 'Totals' >> beam.CombineGlobally(Summing(request.options.splits))
    )
    decided = totals | 'Plan' >> beam.ParDo(steps.Decide(request))
    decision = beam.pvalue.AsSingleton(decided)
    making = beam.ParDo(steps.MakeShards(request), decision)
    making.with_resource_hints(**hints(pipeline.options))
    shards, parts, failures = (
        (
            recordings | 'Assign' >> beam.ParDo(steps.Assign(), decision),
            decided | 'EveryShard' >> beam.FlatMap(steps.every_shard),
        )
        | 'Pieces' >> beam.Flatten()
        | 'ByLane' >> beam.GroupByKey()
        | 'MakeShards' >> making.with_outputs(steps.PARTS, steps.FAILURES, main='shards')
    )
    rows = (
        (recordings, rejected, parts)
        | 'Outcomes' >> beam.Flatten()
        | 'Bucket' >> beam.Map(steps.in_bucket, decision)
        | 'ByBucket' >> beam.GroupByKey()
        | 'Rows' >> beam.ParDo(steps.WriteRows(request)).with_outputs(steps.FAILURES, main='files')
    )
    failures = (failures, rows[steps.FAILURES]) | 'LateFailures' >> beam.Flatten()
    given = map(beam.pvalue.AsList, (shards, rows.files, failures))
    decided | 'Publish' >> beam.ParDo(steps.Publish(request), *given)


def _look(
    pipeline: beam.Pipeline, request: Request
) -> tuple[beam.PCollection[Probed], beam.PCollection[Rejected], beam.PCollection[Failure]]:
    """Finds the inputs, looks into each and rejects what is there twice."""
    divided = (
        pipeline
        | 'Sources' >> beam.Create([steps.Source(item) for item in request.sources])
        | 'Divide' >> beam.ParDo(steps.Divide()).with_outputs(steps.FAILURES, main='parts')
    )
    found = (
        divided.parts
        | 'SpreadParts' >> beam.Reshuffle()  # otherwise one worker would list all of them
        | 'Find' >> beam.ParDo(steps.Find()).with_outputs(steps.FAILURES, main='found')
    )
    known = pipeline | 'Survey' >> beam.Create([None]) | 'Known' >> beam.ParDo(steps.ReadSurvey(request))
    probed = (
        {'found': found.found, 'known': known}
        | 'FoundByPath' >> beam.CoGroupByKey()
        | 'Probe'
        >> beam.ParDo(steps.Probe(request)).with_outputs(steps.REJECTED, steps.FAILURES, main='probed')
    )
    checked = (
        probed.probed
        | 'ByLikeness' >> beam.GroupByKey()
        | 'Duplicates'
        >> beam.ParDo(steps.Duplicates(request)).with_outputs(steps.REJECTED, main='recordings')
    )
    rejected = (probed[steps.REJECTED], checked[steps.REJECTED]) | 'Rejected' >> beam.Flatten()
    failures = [each[steps.FAILURES] for each in (divided, found, probed)] | 'Failures' >> beam.Flatten()
    return checked.recordings, rejected, failures


class Summing(beam.CombineFn):
    """Totals over all inputs, in any order."""

    def __init__(self, splits: dict[str, float]) -> None:
        self._splits = splits

    def create_accumulator(self) -> Totals:
        return Totals()

    def add_input(self, accumulator: Totals, row: Probed | Rejected | Failure) -> Totals:
        accumulator.add(row, self._splits)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Totals]) -> Totals:
        total = Totals()
        for each in accumulators:
            total.merge(each)
        return total

    def extract_output(self, accumulator: Totals) -> Totals:
        return accumulator
