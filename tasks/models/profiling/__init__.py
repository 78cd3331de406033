"""Measures the paths of labeling side by side on the machine at hand, and how its cost grows.

`inputs.py` says what is labeled with what, `stopwatch.py` takes times and memory, `arithmetic.py` counts operations,
`machine_limits.py` measures what the machine can do at most, `compare_paths.py` compares the paths, and `scaling.py`
varies one thing at a time. Nothing here goes on for half a minute without saying what it does.
"""
