"""The reference-set study: how much AP depends on which references were drawn, and how many are enough.

Here: the numbers of runs that differ in their references only, put together. Not here: the runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from refseg_core.errors import counted

_CLOSE = 0.005  # half an AP point


@dataclass(frozen=True)
class Outcome:
    """What a run with `shots` references per category, drawn by that seed, reached: metric -> value in [0, 1]."""

    shots: int
    seed: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds: standard deviation as of a sample, 0 for one seed."""

    shots: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds."""
        return stdev(self.values) if len(self.values) > 1 else 0.0


def spreads(outcomes: Iterable[Outcome]) -> dict[str, list[Spread]]:
    """Each metric's spreads, by ascending number of references."""
    values: dict[str, dict[int, list[float]]] = {}
    for outcome in outcomes:
        for metric, value in outcome.values.items():
            values.setdefault(metric, {}).setdefault(outcome.shots, []).append(value)
    return {
        metric: [Spread(shots, tuple(of_shots)) for shots, of_shots in sorted(by_shots.items())]
        for metric, by_shots in values.items()
    }


def enough(spread: Sequence[Spread]) -> Spread:
    """Returns the fewest references whose mean is as good as the best: within its deviation, or half a point of AP."""
    best = _best(spread)
    within = max(best.deviation, _CLOSE)
    return next(one for one in spread if one.mean >= best.mean - within)


def answer(metric: str, spread: Sequence[Spread]) -> str:
    """Returns how many references are needed, as a sentence."""
    fewest, best, most = enough(spread), _best(spread), spread[-1]
    reached = f"{counted(fewest.shots, 'reference')} per category: {metric} {_mean_and_deviation(fewest)}"
    if len(spread) == 1:
        return f"{reached}. Study several numbers to learn how many are enough."
    if fewest is most:
        return f"{reached} with the most that were tried, and fewer are worse. More may be better still."
    compared = (
        f"the best is {_mean_and_deviation(best)} with {best.shots}" if fewest is not best else "more are no better"
    )
    return f"{reached} is as good as it gets here; {compared}."


def _best(spread: Sequence[Spread]) -> Spread:
    return max(spread, key=lambda one: one.mean)


def _mean_and_deviation(spread: Spread) -> str:
    return f"{spread.mean:.3f} ± {spread.deviation:.3f}"
