"""`python -m benchmarks.tpu`: compiles the training step for TPUs ahead of time, without a TPU.

Needs libtpu (`pip install libtpu`), and no TensorFlow. Prints what XLA's compiler for TPUs says of the step
of the solo instrument on one chip and on a slice: seconds to compile, memory, what the chips exchange. What a
TPU cannot run (a call of the host, float64, a shape that is not known) is an error.

python -m benchmarks.tpu                               # one chip and eight of v5e, float32 and bfloat16
python -m benchmarks.tpu --batch 2 --channels 64 --precisions float32 --chips 8
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from typing import Any

os.environ |= {'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-8', 'TPU_WORKER_ID': '0'}
os.environ |= {'TPU_WORKER_HOSTNAMES': 'localhost', 'JAX_PLATFORMS': 'cpu', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}

from benchmarks.gpu import PRECISIONS, import_parts, make_batch, make_step

TOPOLOGY = 'v5e:2x4'
# In the lowered program; and the collective operations of the compiled one, with the shapes they exchange.
REFUSED = {'xla_python|xla_ffi_python|host_callback|send_to_host': 'calls the host', 'xf64>': 'has float64',
           'tensor<[^>]*\\?': 'has a shape that is not known'}  # fmt: skip
COLLECTIVE = re.compile(
    r'= (\(?[^=]*?\)?) (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\('
)
SHAPE = re.compile(r'(f32|bf16|s32|u32|pred)\[([\d,]*)\]')
BYTES = {'f32': 4, 'bf16': 2, 's32': 4, 'u32': 4, 'pred': 1}


def lint(lowered: str) -> list[str]:
    """What a TPU refuses in a lowered program (StableHLO), one sentence each."""
    return [f'the program {what}' for pattern, what in REFUSED.items() if re.search(pattern, lowered)]


def exchanged(compiled: str) -> dict[str, float]:
    """Megabytes of results of the collective operations of a compiled program, by their kind."""
    found: dict[str, float] = {}
    for shapes, kind in COLLECTIVE.findall(compiled):
        size = 0
        for dtype, dims in SHAPE.findall(shapes):
            count = 1
            for n in filter(None, dims.split(',')):
                count *= int(n)
            size += count * BYTES[dtype]
        found[kind] = found.get(kind, 0.0) + size / 1e6
    return found


def compile_step(chips: int, batch: int, precision: str, channels: int) -> dict[str, Any]:
    """Compiles the step of a batch on each chip."""
    import jax
    import numpy as np
    from jax.experimental import topologies

    import_parts()
    from ddsp.training.meshes import DeviceMesh

    jax.default_backend = lambda: 'tpu'  # what the library asks
    devices = topologies.get_topology_desc(platform='tpu', topology_name=TOPOLOGY).devices
    mesh = DeviceMesh(devices[:chips])
    step = make_step(mesh, precision, channels)

    def shaped(value: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    variables = step.model.trainable_variables, step.optimizer.variables, []
    state = [[shaped(v.value, mesh.everywhere) for v in part] for part in variables]
    features = {key: shaped(value, mesh.spread) for key, value in make_batch(batch * chips).items()}
    stop = shaped(np.zeros(chips, np.float32), mesh.spread)
    start = time.perf_counter()
    lowered = step._compiled.trace(state, features, jax.ShapeDtypeStruct((), np.int32), stop).lower()
    if problems := lint(lowered.as_text()):
        raise SystemExit(f'a TPU does not run this step: {"; ".join(problems)}')
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    row = {
        'chips': chips,
        'batch_a_chip': batch,
        'precision': precision,
        'compile_s': time.perf_counter() - start,
    }
    row['memory_mb'] = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6
    row['program_mb'] = memory.generated_code_size_in_bytes / 1e6
    return row | {f'{kind}_mb': size for kind, size in exchanged(compiled.as_text()).items()}


def main() -> int:
    """Prints the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--chips', default='1,8', help='chips of a slice of eight (1,8)')
    parser.add_argument('--batch', type=int, default=16, help='examples of 4 s on each chip (16)')
    parser.add_argument('--channels', type=int, default=512, help='width of the network (512)')
    parser.add_argument('--precisions', default=','.join(PRECISIONS), help='float32,mixed_bfloat16')
    args = parser.parse_args()
    for precision in args.precisions.split(','):
        for chips in map(int, args.chips.split(',')):
            print(json.dumps(compile_step(chips, args.batch, precision, args.channels)), flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
