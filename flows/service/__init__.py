"""What a Prefect server is told of refseg, and what it tells: deployments, schedules, runs and workers.

Work pools, deployments and automations are told it by `deployments.py`. Not here: starting a server and workers
(`flows/local_stack/`), and what people type (`flows/cli/service.py`).
"""
