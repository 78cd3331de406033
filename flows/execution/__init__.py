"""How labeling is distributed: over a process, Dask or GPU workers, watched and cancelled through the Prefect server.

Not here: the order of the steps (`flows/pipeline.py`), and starting a server and workers (`flows/local_stack/`).
"""
