"""Measures the paths of labeling side by side on the machine at hand, how its cost grows, and how accurate it is.

`inputs.py` says what is labeled with what, `stopwatch.py` takes times and memory, `arithmetic.py` counts operations,
`machine_limits.py` measures what the machine can do at most, `compare_paths.py` compares the paths, and `scaling.py`
varies one thing at a time. `variants.py` compares accuracy and cost of settings, with `shared_models.py` to label
quickly and `proposal_coverage.py` for what masks could reach. Nothing here goes on for half a minute without saying
what it does.
"""
