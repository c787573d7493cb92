"""Synthesizers: from controls to audio."""

from ddsp.synths.harmonic import Harmonic, Sinusoidal
from ddsp.synths.noise import FilteredNoise
from ddsp.synths.wavetable import TensorToAudio, Wavetable

__all__ = ['FilteredNoise', 'Harmonic', 'Sinusoidal', 'TensorToAudio', 'Wavetable']
