"""Spectral analysis: spectrograms, loudness, energy, pitch. Differentiable unless said otherwise."""

from ddsp.analysis.framing import get_framed_lengths
from ddsp.analysis.loudness import DB_RANGE
from ddsp.spectral_ops.crepe import (
    CREPE_FRAME_SIZE,
    CREPE_SAMPLE_RATE,
    PretrainedCREPE,
    compute_f0,
    reset_crepe,
)
from ddsp.spectral_ops.frames import frame, pad, pad_or_trim_to_expected_length, to_mono
from ddsp.spectral_ops.levels import compute_loudness, compute_power, compute_rms_energy
from ddsp.spectral_ops.spectra import (
    compute_logmag,
    compute_logmel,
    compute_mag,
    compute_mel,
    compute_mfcc,
    stft,
    stft_np,
)

F0_RANGE = 127.0  # MIDI notes

__all__ = [
    'CREPE_FRAME_SIZE',
    'CREPE_SAMPLE_RATE',
    'DB_RANGE',
    'F0_RANGE',
    'PretrainedCREPE',
    'compute_f0',
    'compute_logmag',
    'compute_logmel',
    'compute_loudness',
    'compute_mag',
    'compute_mel',
    'compute_mfcc',
    'compute_power',
    'compute_rms_energy',
    'frame',
    'get_framed_lengths',
    'pad',
    'pad_or_trim_to_expected_length',
    'reset_crepe',
    'stft',
    'stft_np',
    'to_mono',
]
