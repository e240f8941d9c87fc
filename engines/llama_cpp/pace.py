"""How many prompt tokens a step may take, so that it lasts about as long as it should.

A step that lasts long is felt by everybody: running answers stand still meanwhile, and so does
the news of a cancellation. One that is too short spends its time on reading the weights.
"""

from __future__ import annotations

# Fewer rows cost hardly less time: the weights are read once for all of them.
LEAST_TOKENS = 32
# Without an answer that would stand still, a step may last so many times longer.
_PATIENCE = 4
# Weight of the newest measurement.
_NEWEST = 0.3


class Pace:
    """Learns from finished steps what a prompt token costs, in seconds.

    `seconds` is how long a step shall last, `most` the tokens it may take at most.
    """

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._per_token = 0.0
        self._without = 0.0

    def budget(self, n_generating: int) -> int:
        """Return the prompt tokens for the next step, beside so many running answers."""
        if self._per_token <= 0:
            return self._most
        left = self._seconds - self._without if n_generating else self._seconds * _PATIENCE
        return min(max(int(left / self._per_token), LEAST_TOKENS), self._most)

    def note(self, n_prompt: int, seconds: float) -> None:
        """Note that a step with so many prompt tokens took so long."""
        if n_prompt == 0:
            self._without = _mean(self._without, seconds)
        elif n_prompt >= LEAST_TOKENS:
            self._per_token = _mean(self._per_token, max(seconds - self._without, 0.0) / n_prompt)


def _mean(old: float, new: float) -> float:
    """Return the moving average; the first value counts whole."""
    return new if old <= 0 else old + _NEWEST * (new - old)
