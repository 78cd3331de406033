"""What a task needs while it runs: reporting its progress, being cancelled, being retried.

Not here: retrying a single call (`tasks/storage/retry.py`).
"""
