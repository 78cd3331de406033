"""What people see of a run in the Prefect UI: progress, tables, pictures and a summary, under keys that stay.

`keys.py` has the keys; `progress.py` shows how far a run is; `references.py`, `labels.py` and `metrics.py` load what
they show and hand it to `publishing.py`; the rest is text: `rows.py`, `summary.py`, `markdown.py`, `throughput.py`.
"""
