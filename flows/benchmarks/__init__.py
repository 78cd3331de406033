"""`refseg benchmark`: the method's published benchmarks, one command each, beside the published numbers.

What a benchmark is stands in `deployments/benchmarks/`, a file each. `spec.py` reads such a file, `data_check.py`
checks that what it needs is there, `run.py` runs its runs over the pipeline, and `comparison.py` sets numbers side by
side.
"""
