"""An oddity says how often it was found; a single one does so behind its plural words."""

from refseg_core.datasets.oddities import Oddity


def test_the_count_fits_the_words() -> None:
    what = "images without annotations"
    said = [str(Oddity(what, number, ())) for number in (1, 2, 1200)]
    assert said == [f"{what} (1)", f"2 {what}", f"1,200 {what}"]
