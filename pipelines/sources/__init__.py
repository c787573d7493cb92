"""From what the user names to the recordings of each split."""
