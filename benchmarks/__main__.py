"""`python -m benchmarks`: CPU seconds and peak memory of every operation, beside ddsp 3.7.0.

python -m benchmarks                                     # against the recorded costs of ddsp 3.7.0
python -m benchmarks --against ENV/bin/python            # 3.7.0, or this library at another commit, too
python -m benchmarks --cases spectral_loss_gradients,train_step --mode xla
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.operations.cases import CASES
from benchmarks.operations.reference import GOALS, RECORDED, Cost, Goal

HERE = pathlib.Path(__file__).resolve().parent
SMALLER_BATCH = 4  # for what ddsp 3.7.0 cannot do at batch 16
Row = dict[str, Any]


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MiB; 0 where /proc does not tell."""
    try:
        pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def run_child(python: str, case: str, batch: int, args: argparse.Namespace) -> Row:
    """One case with one interpreter. Its status is 'ok', 'out of memory', 'too slow' or 'error'."""
    runs = 2 if args.quick else args.runs
    command = [python, str(HERE / 'operations' / 'child.py'), case, str(batch), args.mode, str(runs)]
    with tempfile.TemporaryFile('w+') as output, tempfile.TemporaryDirectory() as elsewhere:
        # Started in an empty folder: an interpreter with another ddsp must not find this one.
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=elsewhere)
        status, start = '', time.monotonic()
        while child.poll() is None and not status:
            time.sleep(0.05)
            if resident_mb(child.pid) > args.memory_limit_mb:
                status = 'out of memory'
            elif time.monotonic() - start > args.timeout:
                status = 'too slow'
        if status:
            child.kill()
            child.wait()
        output.seek(0)
        lines = output.read().splitlines()
    found = [json.loads(line[7:]) for line in lines if line.startswith('RESULT ')]
    row = {'case': case, 'batch': batch, 'mode': args.mode}
    if found and not status:
        return {**row, 'status': 'ok', **found[-1]}
    return {**row, 'status': status or 'error', 'message': '' if status else '\n'.join(lines[-3:])}


def upstream_row(case: str, args: argparse.Namespace) -> tuple[Row, str]:
    """Cost of ddsp 3.7.0: measured now, or as recorded; and where it comes from."""
    if not args.against:
        cost = RECORDED.get(case, Cost(0, None, None))
        status = 'ok' if cost.cpu_s is not None else 'not recorded'
        return {**cost._asdict(), 'case': case, 'status': status}, 'recorded'
    batch = CASES[case][2] if case in CASES else 0
    row = run_child(args.against, case, batch, args)
    if row['status'] == 'out of memory' and batch > SMALLER_BATCH:
        row = run_child(args.against, case, SMALLER_BATCH, args)
    return row, 'measured'


def ratio(ours: Row, theirs: Row, key: str) -> float | None:
    """Our cost as a share of theirs, for each example where the batches differ."""
    if ours['status'] != 'ok' or theirs['status'] != 'ok' or not theirs.get(key) or ours.get(key) is None:
        return None
    return (ours[key] / max(ours['batch'], 1)) / (theirs[key] / max(theirs['batch'], 1))


def reached(case: str, ours: Row, theirs: Row) -> bool | None:
    """Whether the goal of a case is reached; None where it has none, or nothing to compare with."""
    if not theirs.get('version', '3.7.0').startswith('3.7'):  # goals are set beside 3.7.0
        return None
    goal = GOALS.get(case, Goal())
    checks = [
        (goal.time, ratio(ours, theirs, 'cpu_s')),
        (goal.memory, ratio(ours, theirs, 'peak_mb')),
        (goal.max_mb, ours.get('peak_mb')),
        (goal.max_s, ours.get('cpu_s')),
    ]
    known = [value <= limit for limit, value in checks if limit is not None and value is not None]
    return all(known) if known else None


def figure(row: Row, key: str, digits: int) -> str:
    """One cost for the table, with its batch where that is not 16."""
    if row['status'] != 'ok' or row.get(key) is None:
        return row['status'] if row['status'] not in ('ok', 'not recorded') and key == 'cpu_s' else '-'
    return f'{row[key]:.{digits}f}' + (f' (b{row["batch"]})' if row['batch'] == SMALLER_BATCH else '')


def share(value: float | None) -> str:
    """A ratio as people say it: 1/12 or 1.3."""
    if value is None:
        return '-'
    return f'{value:.2f}' if value > 0.9 else f'1/{1 / value:.1f}'


def goal_text(goal: Goal) -> str:
    """The goal of a case: shares of time and memory, or limits."""
    parts = [f'1/{1 / value:g}' for value in (goal.time, goal.memory) if value]
    parts += [f'{goal.max_mb:g} MB'] if goal.max_mb else []
    parts += [f'{goal.max_s:g} s'] if goal.max_s else []
    return ', '.join(parts)


def make_table(rows: list[Row], mode: str) -> Table:
    """The results as a table for the terminal."""
    measured = {row['upstream'].get('version') for row in rows} - {None}
    other = ', '.join(sorted(measured)) or '3.7.0'
    table = Table(title=f'CPU seconds and peak memory over the import, mode {mode}')
    table.add_column('operation', no_wrap=True)
    for header in (
        f'{other} CPU s',
        f'{other} MB',
        'here CPU s',
        'here MB',
        'time',
        'memory',
        'goal',
        'reached',
    ):
        table.add_column(header, justify='right', no_wrap=True)
    for row in rows:
        ours, theirs = row['here'], row['upstream']
        mark = {True: '[green]yes', False: '[red]no', None: ''}[row['reached']]
        table.add_row(
            row['case'], figure(theirs, 'cpu_s', 3), figure(theirs, 'peak_mb', 0), figure(ours, 'cpu_s', 3),
            figure(ours, 'peak_mb', 0), share(row['time_ratio']), share(row['memory_ratio']),
            goal_text(GOALS.get(row['case'], Goal())), mark,
        )  # fmt: skip
    return table


def describe_machine() -> dict[str, Any]:
    """Processor, number of cores, versions."""
    model = platform.processor()
    cpuinfo = pathlib.Path('/proc/cpuinfo')
    if cpuinfo.exists():
        names = [
            line.split(':')[1] for line in cpuinfo.read_text().splitlines() if line.startswith('model name')
        ]
        model = names[0].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return {
        'processor': model,
        'cores': cores,
        'system': platform.platform(),
        'python': platform.python_version(),
    }


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    names = ['import', *CASES]
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks', description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument('--cases', default=','.join(names), help='comma-separated, of: ' + ', '.join(names))
    parser.add_argument('--mode', choices=('graph', 'eager', 'xla'), default='graph', help='default: graph')
    parser.add_argument('--quick', action='store_true', help='two runs of each case')
    parser.add_argument('--runs', type=int, default=9, help='runs of each case, of which the median counts')
    parser.add_argument(
        '--against', '--upstream-python', metavar='PYTHON',
        help='interpreter of an environment with another ddsp, 3.7.0 or this one at another commit; measured '
        'turn by turn with this one',
    )  # fmt: skip
    parser.add_argument('--timeout', type=float, default=600, help='seconds after which a case is stopped')
    parser.add_argument(
        '--memory-limit-mb', type=float, default=11000, help='memory at which a case is stopped'
    )
    parser.add_argument(
        '--output', type=pathlib.Path, help='where the JSON goes (benchmarks/results/TIME.json)'
    )
    args = parser.parse_args()
    args.cases = [name for name in args.cases.split(',') if name]
    unknown = sorted(set(args.cases) - set(names))
    if unknown:
        parser.error(f'--cases: no such case: {", ".join(unknown)}; there are {", ".join(names)}')
    return args


def main() -> int:
    """Measures, prints the table, writes the JSON; 1 when a case of ours failed."""
    args = parse_arguments()
    console, rows = Console(width=None if sys.stdout.isatty() else 120), []
    for case in args.cases:
        with console.status(f'{case} ({len(rows) + 1} of {len(args.cases)})'):
            theirs, origin = upstream_row(case, args)
            ours = run_child(sys.executable, case, CASES[case][2] if case in CASES else 0, args)
        print(f'{case}: {figure(ours, "cpu_s", 3)} CPU s', file=sys.stderr, flush=True)
        if ours['status'] == 'error':
            console.print(f'[red]{case} failed:[/red]\n{ours["message"]}')
        rows.append({
            'case': case, 'here': ours, 'upstream': theirs, 'upstream_is': origin,
            'time_ratio': ratio(ours, theirs, 'cpu_s'), 'memory_ratio': ratio(ours, theirs, 'peak_mb'),
            'reached': reached(case, ours, theirs),
        })  # fmt: skip
    console.print(make_table(rows, args.mode))
    now = datetime.datetime.now(datetime.UTC)
    output = args.output or HERE / 'results' / f'{now:%Y%m%dT%H%M%SZ}.json'
    output.parent.mkdir(parents=True, exist_ok=True)
    report = {
        'time': now.isoformat(timespec='seconds'), 'command': sys.argv[1:], 'mode': args.mode,
        'machine': describe_machine(), 'rows': rows,
    }  # fmt: skip
    output.write_text(json.dumps(report, indent=1) + '\n')
    console.print(f'written to {output}')
    return int(any(row['here']['status'] != 'ok' for row in rows))


if __name__ == '__main__':
    sys.exit(main())
