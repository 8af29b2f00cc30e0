"""How functions that take long tell how far they are."""

from collections.abc import Callable

# Called with what is done and what there is in all.
Progress = Callable[[int, int], None]
