"""What people get out of a store: pictures, exports, what the Prefect UI shows.

Not here: what a run keeps for itself (`tasks/store/`).
"""
