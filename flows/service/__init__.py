"""The whole service without containers: Prefect server, S3 server and workers of one machine, kept alive.

`commands.py` is what people type. A stack is a list of parts (`parts.py`: Prefect server, in a program of its own,
`server.py`, and workers; `s3.py`), which a supervisor in the background starts and starts again (`supervisor.py`).
`wishes.py` says what a stack shall be, `stack.py` brings it up and down. What the server has to know, pools,
deployments and automations, is told it by `deploying.py`.
"""
