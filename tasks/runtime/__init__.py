"""What a task needs while it runs: to say how far it is, to be stopped, to be tried again.

Not here: trying a single call again (`tasks/storage/retry.py`).
"""
