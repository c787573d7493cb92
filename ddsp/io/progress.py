"""What long work tells of how far it has come."""

from __future__ import annotations

from collections.abc import Callable

# progress(done, total, text): `done` of `total` (0 where that is unknown); `text` says what came last
Progress = Callable[[float, float, str], None]
