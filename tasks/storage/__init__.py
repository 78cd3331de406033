"""The only modules that open a URI, and the only door to fsspec.

A folder is a local directory or a prefix in an object store, named by any fsspec URI or plain path. Objects are put
whole and once: `create` never overwrites, so that a reader gets all of an object. Transient errors of
every call are retried (`tasks/storage/retry.py`). What the objects mean is not known here (see `tasks/store/store.py`).
"""
