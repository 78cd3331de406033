"""S3 servers that tests talk to as they would to real ones."""

import math
import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import fsspec
import pytest

from tests.support.servers.seaweedfs import Account

_connected_by: dict[str, str] = {}  # the environment that connections were made in


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server and the account to use it with."""

    endpoint: str
    account: Account

    def used_by(self, account: Account) -> Self:
        """The same server, used with another account."""
        return replace(self, account=account)

    def behind(self, endpoint: str) -> Self:
        """The same server, reached through a proxy at this endpoint."""
        return replace(self, endpoint=endpoint)

    def new_bucket(self) -> str:
        """The name of a bucket that is new."""
        bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        self.filesystem().mkdir(bucket)
        return bucket

    def filesystem(self) -> Any:
        """The server past `tasks/storage/` and whatever the environment says."""
        return fsspec.filesystem(
            "s3",
            key=self.account.key,
            secret=self.account.secret,
            endpoint_url=self.endpoint,
            use_listings_cache=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have a program use this server with this account."""
        return {
            "AWS_ACCESS_KEY_ID": self.account.key,
            "AWS_SECRET_ACCESS_KEY": self.account.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    @contextmanager
    def in_environment(self) -> Iterator[Self]:
        """Within the block the environment points here, for this process and for those that it starts.

        Folders keep the connection with which they were made, so make those of the block within it.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            _forget_connections_made_elsewhere()
            yield self
        _forget_connections_made_elsewhere()


@dataclass(frozen=True)
class Moto(ObjectStore):
    """A server that lets in everybody, or nobody."""

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


def forget_connections() -> None:
    """Has s3fs read the environment anew: it keeps a connection for every set of arguments, not of variables."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    _connected_by.clear()


def _forget_connections_made_elsewhere() -> None:
    """A connection takes longer than most tests, so those that point to the same place share it."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    if variables and variables != _connected_by:
        forget_connections()
        _connected_by.update(variables)
