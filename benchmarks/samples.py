"""What has been measured of one peer: samples of each figure, and what went wrong."""

import statistics
from collections import Counter, defaultdict

from benchmarks.goals import FIGURES


class Samples:
    """One peer's, over all rounds."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[list[float]]] = defaultdict(list)
        """Of each figure, the samples of each slice."""
        self.errors: Counter[str] = Counter()
        self.client_cpu: dict[str, list[float]] = defaultdict(list)
        """The part of a core that the client took in slices of a figure, in percent."""

    def add(self, key: str, *samples: float) -> None:
        """What one slice has measured."""
        if samples:
            self.rounds[key].append(list(samples))

    def value(self, key: str) -> float | None:
        """The figure over all rounds; None where nothing was measured."""
        samples = [sample for found in self.rounds[key] for sample in found]
        return _value(key, samples) if samples else None

    def ratio(self, key: str, base: "Samples") -> float | None:
        """The figure as a multiple of another peer's: the median over rounds, whose slices had the same weather."""
        pairs = zip(self.rounds[key], base.rounds[key], strict=False)
        ratios = [_value(key, ours) / other for ours, theirs in pairs if (other := _value(key, theirs))]
        return statistics.median(ratios) if ratios else None


def _value(key: str, samples: list[float]) -> float:
    """The median, or whatever percentile the figure is."""
    percentile = FIGURES[key].percentile if key in FIGURES else 50
    if percentile == 50:
        return statistics.median(samples)
    return sorted(samples)[min(len(samples) - 1, len(samples) * percentile // 100)]
