"""What a TPU refuses is found in a lowered program."""

import numpy as np
import pytest

jax = pytest.importorskip('jax')
jnp = jax.numpy


def lowered(function, *shapes, platform='tpu'):
    """A program that is not compiled."""
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def call_the_host(x):
    return jax.pure_callback(lambda y: np.asarray(y) + 1, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def test_planted_faults_are_found():
    from benchmarks.tpu import lint

    def fine(x):
        return jnp.fft.irfft(jnp.fft.rfft(jnp.sin(x)))

    assert lint(lowered(fine, ((4, 8), np.float32))) == []
    on_host = lowered(
        call_the_host, ((4,), np.float32), platform='cpu'
    )  # JAX itself refuses it without a TPU
    assert lint(on_host) == ['the program calls the host']
    with jax.enable_x64(True):
        assert lint(lowered(jnp.cumsum, ((4,), np.float64))) == ['the program has float64']
    (n,) = jax.export.symbolic_shape('n')
    exported = jax.export.export(jax.jit(jnp.sin), platforms=['tpu'])(jax.ShapeDtypeStruct((n,), np.float32))
    assert lint(exported.mlir_module()) == ['the program has a shape that is not known']


def test_collectives_are_counted_by_their_bytes():
    from benchmarks.tpu import exchanged

    program = """
  %a = f32[256,2]{1,0} all-reduce(%x), replica_groups={{0,1}}
  %b = (bf16[10]{0}, f32[4]{0}) all-gather-start(%y), dimensions={0}
  %c = f32[8]{0} add(%a, %b)
"""
    assert exchanged(program) == {'all-reduce': 0.002048, 'all-gather': 36e-6}
