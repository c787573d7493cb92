"""Fast versions of the recurrent layers, with gradients written by hand.

`ddsp.core.kernels` switches them; the definitions are the Keras layers. `layers` says where a kernel computes
the same as a layer, `blocks` goes through time, `gru` and `stacks` are what happens in a block.
"""
