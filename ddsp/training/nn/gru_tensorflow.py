"""The recurrence of a GRU and its gradient in TensorFlow.

With gates ordered (update z, reset r, candidate n), input kernel W, recurrent kernel U, biases b (input) and
c (recurrent), the `reset_after` form of Cho et al. (2014) that cuDNN and Keras compute is

    a = x W + b,  i = h U + c
    z = sigmoid(a_z + i_z),  r = sigmoid(a_r + i_r),  n = tanh(a_n + r i_n)
    h' = z h + (1 - z) n

Writing d for the gradient with respect to h', the gradients of the pre-activations are d times factors that
do not depend on d, so they are computed for all steps at once; the backward loop is one product with U^T a
step.
"""

from __future__ import annotations

import tensorflow as tf


@tf.custom_gradient
def gru(
    x: tf.Tensor, state: tf.Tensor, kernel: tf.Tensor, recurrent_kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Runs a GRU over the time axis.

    Args:
      x: Inputs `[batch, time, channels]`.
      state: Initial state `[batch, units]`.
      kernel: `[channels, 3 * units]`.
      recurrent_kernel: `[units, 3 * units]`.
      bias: `[2, 3 * units]`, of the inputs and of the state.

    Returns:
      Outputs `[batch, time, units]`.
    """
    steps_first = tf.transpose(x, [1, 0, 2])
    projected = tf.einsum('tbc,cg->tbg', steps_first, kernel) + bias[0]
    h, zr, n, inner_n = _forward(projected, state, recurrent_kernel, bias[1])

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        z, r = tf.split(zr, 2, axis=-1)
        previous = tf.concat([state[None], h[:-1]], axis=0)
        to_n = (1.0 - z) * (1.0 - n * n)
        to_z = (previous - n) * z * (1.0 - z)
        to_r = to_n * inner_n * r * (1.0 - r)
        to_inner = tf.concat([to_z, to_r, to_n * r], axis=-1)
        d = _backward(tf.transpose(upstream, [1, 0, 2]), z, to_inner, recurrent_kernel)
        d_inner = tf.tile(d[1], [1, 1, 3]) * to_inner
        d_projected = tf.concat([d_inner[..., : 2 * z.shape[-1]], d[1] * to_n], axis=-1)
        d_x = tf.einsum('tbg,cg->btc', d_projected, kernel)
        d_kernel = tf.einsum('tbc,tbg->cg', steps_first, d_projected)
        d_recurrent = tf.einsum('tbh,tbg->hg', previous, d_inner)
        d_bias = tf.stack([tf.reduce_sum(d_projected, [0, 1]), tf.reduce_sum(d_inner, [0, 1])])
        return d_x, d[0], d_kernel, d_recurrent, d_bias

    return tf.transpose(h, [1, 0, 2]), gradient


def _forward(
    projected: tf.Tensor, state: tf.Tensor, recurrent_kernel: tf.Tensor, recurrent_bias: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """States, gates (z, r), candidates and their recurrent parts, each `[time, batch, ...]`."""
    units = state.shape[-1]
    steps = tf.shape(projected)[0]

    def array() -> tf.TensorArray:
        return tf.TensorArray(projected.dtype, size=steps, element_shape=None, clear_after_read=False)

    projected_steps = tf.TensorArray(projected.dtype, size=steps, clear_after_read=True).unstack(projected)

    def step(t: tf.Tensor, h: tf.Tensor, arrays: tuple[tf.TensorArray, ...]) -> tuple:
        a = projected_steps.read(t)
        inner = tf.matmul(h, recurrent_kernel) + recurrent_bias
        inner_n = inner[:, 2 * units :]
        zr = tf.sigmoid(a[:, : 2 * units] + inner[:, : 2 * units])
        z, r = zr[:, :units], zr[:, units:]
        n = tf.tanh(a[:, 2 * units :] + r * inner_n)
        h = n + z * (h - n)
        return t + 1, h, tuple(arr.write(t, v) for arr, v in zip(arrays, (h, zr, n, inner_n), strict=True))

    _, _, arrays = tf.while_loop(
        lambda t, *_: t < steps, step, (tf.constant(0), state, tuple(array() for _ in range(4)))
    )
    shape = [projected.shape[0], projected.shape[1]]
    stacked = [arr.stack() for arr in arrays]
    for value, channels in zip(stacked, (units, 2 * units, units, units), strict=True):
        value.set_shape([*shape, channels])
    return tuple(stacked)


def _backward(
    upstream: tf.Tensor, z: tf.Tensor, to_inner: tf.Tensor, recurrent_kernel: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Gradient of the initial state `[batch, units]` and of every state `[time, batch, units]`."""
    steps = tf.shape(upstream)[0]
    rows = [tf.TensorArray(upstream.dtype, size=steps).unstack(v) for v in (upstream, z, to_inner)]
    transposed = tf.transpose(recurrent_kernel)

    def step(t: tf.Tensor, d_h: tf.Tensor, out: tf.TensorArray) -> tuple:
        dy, z_t, factor = (row.read(t) for row in rows)
        d_h = d_h + dy
        out = out.write(t, d_h)
        d_h = d_h * z_t + tf.matmul(tf.tile(d_h, [1, 3]) * factor, transposed)
        return t - 1, d_h, out

    start = tf.zeros_like(upstream[0])
    out = tf.TensorArray(upstream.dtype, size=steps)
    _, d_state, out = tf.while_loop(lambda t, *_: t >= 0, step, (steps - 1, start, out))
    d = out.stack()
    d.set_shape(upstream.shape)
    return d_state, d
