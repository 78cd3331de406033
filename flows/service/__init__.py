"""Refseg's objects on a Prefect server: pools, deployments, automations, schedules, runs and workers.

Not here: starting a server and workers (`flows/local_stack/`), and the commands (`flows/cli/service.py`).
"""
