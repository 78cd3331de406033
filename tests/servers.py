"""Servers that tests talk to as they would to real ones."""

import math
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server."""

    endpoint: str

    def new_bucket(self) -> str:
        """The name of a bucket that is new."""
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        self.filesystem().mkdir(bucket)
        return bucket

    def filesystem(self) -> Any:
        """The server as the credentials in the environment see it, past `tasks/storage.py`."""
        return fsspec.filesystem("s3", use_listings_cache=False)

    @contextmanager
    def knowing_nobody(self) -> Iterator[None]:
        """Within the block the server refuses everybody's credentials."""
        self._require_credentials_after(0)
        try:
            yield
        finally:
            self._require_credentials_after(math.inf)

    def _require_credentials_after(self, num_requests: float) -> None:
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=str(num_requests).encode(),
            headers={"Content-Type": "text/plain"},
        )
        with urllib.request.urlopen(request) as reply:
            reply.read()
