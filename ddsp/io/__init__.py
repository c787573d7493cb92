"""Files: audio and its decoding, dataset directories, gs://, JSON."""
