"""The only modules that open a URI, and the only door to fsspec.

A folder is a local directory or a prefix in an object store, named by any fsspec URI or plain path. Objects are put
whole and once: `create` never overwrites, so that whoever reads an object reads all of it. Every call is patient with
passing faults (`tasks/faults.py`). What the objects mean is not known here (see `tasks/artifacts.py`).
"""

from tasks.storage.folder import Folder
from tasks.storage.listings import FileInfo
from tasks.storage.objects import open_uri, read_uri, uri_size, write_uri

__all__ = ["FileInfo", "Folder", "open_uri", "read_uri", "uri_size", "write_uri"]
