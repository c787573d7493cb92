"""The pitch of CREPE's outputs, for both of its decoders (numpy, and tensors with gradients)."""

import numpy as np

N_BINS = 360
CENTS = np.linspace(0, 7180, N_BINS) + 1997.3794084376191  # above 10 Hz
