"""The method's published benchmarks, compared with the published numbers.

Each benchmark is defined by a file in `deployments/benchmarks/`. `spec.py` reads it, `data_check.py` checks the data,
`run.py` runs it over the pipeline, and `comparison.py` compares the numbers.
"""
