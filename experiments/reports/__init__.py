"""Pictures, comparisons and the pages people look at."""
