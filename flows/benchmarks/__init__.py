"""`refseg benchmark`: the method's published benchmarks, one command each, beside the published numbers.

What a benchmark is stands in `deployments/benchmarks/`, a file each. `definition.py` reads such a file, `data.py`
checks that what it needs is there, `running.py` runs its runs over the pipeline, and `outcome.py` sets numbers side by
side.
"""
