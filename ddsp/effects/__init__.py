"""Effects: from audio to audio."""

from ddsp.effects.filters import FIRFilter, ModDelay
from ddsp.effects.reverb import ExpDecayReverb, FilteredNoiseReverb, Reverb

__all__ = ['ExpDecayReverb', 'FIRFilter', 'FilteredNoiseReverb', 'ModDelay', 'Reverb']
