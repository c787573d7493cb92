"""`ddsp demo`: the whole job in one command."""
