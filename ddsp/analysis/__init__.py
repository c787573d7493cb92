"""What recordings are measured by, with NumPy and SciPy alone: frames, loudness, notes, likely sequences."""
