"""The speed of a step over the last minute or so, and the time that the rest will take. Reads no clock."""

from collections import deque

_LEAST_SECONDS, _LEAST_UNITS = 60, 16  # what the estimate looks back on, where there is as much


class Pace:
    """Counts units done; `total` is None as long as it is unknown."""

    def __init__(self, now: float, total: int | None = None) -> None:
        self.done = 0
        self.total = total
        self._started = now
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])

    def mark(self, now: float, done: int) -> None:
        """Records how many units are done."""
        self.done = done
        if done != self._marks[-1][1]:
            self._marks.append((now, done))
        while len(self._marks) > 1:
            then, done_then = self._marks[1]
            if now - then < _LEAST_SECONDS or done - done_then < _LEAST_UNITS:
                return
            self._marks.popleft()

    @property
    def percentage(self) -> float:
        """Of 100, to a tenth; 100 only once all is done."""
        if self.total is None:
            return 0.0
        return 100.0 if self.total == 0 else min(int(1000 * self.done / self.total) / 10, 100.0)

    def per_second(self, now: float) -> float:
        """Returns the recent speed in units per second."""
        then, done = self._marks[0]
        return (self.done - done) / (now - then) if now > then else 0.0

    def describe(self, now: float, unit: str) -> str:
        """'1,024 of 4,096 images, 12.1 images/s, 4 min left'."""
        rate = self.per_second(now)
        parts = [self.counted(unit)]
        if rate:
            parts.append(_speed(rate, unit))
        if rate and self.total is not None and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(parts)

    def describe_end(self, now: float, unit: str) -> str:
        """'4,096 of 4,096 images in 6 min, 11.4 images/s'."""
        if self.total == 0:
            return "nothing was to do"
        seconds = now - self._started
        speed = f", {_speed(self.done / seconds, unit)}" if self.done and seconds > 0 else ""
        return f"{self.counted(unit)} in {duration(seconds)}{speed}"

    def counted(self, unit: str) -> str:
        """'1,024 of 4,096 images'."""
        return f"{self.done:,} {unit}" if self.total is None else f"{self.done:,} of {self.total:,} {unit}"


def duration(seconds: float) -> str:
    """'40 s', '4 min', '2 h 05 min': as exact as an estimate deserves."""
    minutes = round(seconds / 60)
    if seconds < 90:  # noqa: PLR2004
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"  # noqa: PLR2004


def _speed(rate: float, unit: str) -> str:
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.3g} {unit}/s"  # noqa: PLR2004
