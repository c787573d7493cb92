"""From a recording to examples: features, windows, quality and statistics."""
