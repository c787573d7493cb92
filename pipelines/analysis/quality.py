"""What counts as silent, quiet, unpitched ...: every threshold by which recordings and datasets are judged.

Loudness is A-weighted, in dB of full scale, with a floor at -80.
"""

from __future__ import annotations

# Recordings (`pipelines.analysis.recording`).
SILENT_DB = -70.0  # of the loudest frame: 10 dB above the floor there is only the noise of the converter
QUIET_DB = -45.0  # less than half of the 80 dB in which a model hears
SHORT_SECS = 0.064  # one analysis window
UNPITCHED_SHARE = 0.02  # of the frames; estimators call that many frames of noise voiced
HALF_VOICED_SHARE = 0.5  # long rests are fine, but more of them than notes are worth a note

# Examples (`pipelines.inspect`).
CLIPPED = 0.99  # of full scale: converters do not always reach 1
CLIPPED_SHARE = 1e-4  # of the samples; a single peak may touch the limit
LOW_CONFIDENCE = 0.7  # with yin 1 of 12 clips of one instrument is below it, 6 of 12 of three at once
JUMP_SEMITONES = 7.0  # between neighbouring frames; singers and strings do not do that
JUMPS_PER_SEC = 2.0  # fast players reach one
EDGE_SEMITONES = 0.5  # from the limit of an estimator: what lies beyond is pressed against it
EDGE_SHARE = 0.05  # of the voiced frames

# Datasets (`pipelines.inspect.health`).
FEW_SECS = 120.0  # a model knows two minutes by heart within an hour of training
FEW_TEST_SECS = 4.0  # one example
FEW_VOICED_SHARE = 0.2  # of the frames: speech and percussion are below, music with rests above
MANY_REJECTED_SHARE = 0.2  # of the inputs: something is wrong with all of them
DOMINANT_SHARE = 0.5  # of the audio in one recording, which outweighs the rest
NARROW_SEMITONES = 5.0  # between the 1st and the 99th percentile: fewer notes than a scale has
UNHEARD_SHARE = 0.1  # of the pitches of a split outside of the training data
PADDED_SHARE = 0.4  # of the frames
SUSPICIOUS_SHARE = 0.1  # of the examples
