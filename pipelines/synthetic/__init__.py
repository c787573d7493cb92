"""A corpus that is made, not recorded."""
