"""The graph, and what runs in its workers."""
