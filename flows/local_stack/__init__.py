"""The whole service without containers: Prefect server, S3 server and workers of one machine, kept alive.

A stack is a list of programs (`programs.py`: Prefect server, in a program of its own, `prefect_server.py`, and workers;
`seaweedfs.py`), which a supervisor in the background starts and starts again (`supervisor.py`). `options.py` says what
a stack shall be, `lifecycle.py` brings it up and down. Not here: what any Prefect server is told (`flows/service/`).
"""
