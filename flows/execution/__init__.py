"""How labeling is spread out: over a process, Dask or GPU workers, watched and cancelled through the Prefect server.

Not here: the order of the steps (`flows/pipeline.py`), and a server or workers of one's own (`flows/local_stack/`).
"""
