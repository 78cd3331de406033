"""The whole service without containers: Prefect server, S3 server and workers of one machine, kept alive.

A stack consists of programs (`programs.py`: workers and the Prefect server, which `prefect_server.py` runs;
`seaweedfs.py`: the S3 server). A supervisor in the background starts and restarts them (`supervisor.py`). `options.py`
are the options of a stack and the programs that follow from them, `lifecycle.py` starts and ends it. Not here: what any
Prefect server is given (`flows/service/`).
"""
