"""Measures the paths of labelling side by side on the machine at hand, and how its cost grows.

`inputs.py` says what is labelled with what, `stopwatch.py` takes times, memory and arithmetic, `ceilings.py` measures
what the machine can do at most, `side_by_side.py` compares the paths, and `growth.py` varies one thing at a time.
"""
