"""Files of people in an S3-compatible store. Imported only where one is used.

The store answers to us alone: buckets are private, nobody is sent to one, and a view
hands each file out. What the store or the way to it does wrong is a ``StorageAway``,
which is an ``OSError``: the same code that copes with a full disk copes with it.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import File
from storages.backends.s3 import S3Storage
from storages.utils import clean_name

from webapp.core.storage import StorageAway

_NOT_THERE = {"404", "NoSuchKey", "NotFound"}


@contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """boto's exceptions as those of a file system."""
    try:
        yield
    except ClientError as error:
        if str(error.response.get("Error", {}).get("Code")) in _NOT_THERE:
            raise FileNotFoundError(f"{name} is not in the store") from error
        raise StorageAway(f"the store refuses {name}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StorageAway(f"the store does not answer for {name}: {error}") from error


class DurableS3Storage(S3Storage):
    """An object is whole or not there: it is written and read in one request.

    Photos and models are small, so one request is both the quickest and the safest
    way; the parts and temporary files of django-storages are not needed.
    """

    def get_default_settings(self) -> dict[str, Any]:
        return {
            **super().get_default_settings(),
            # For a moment's hiccup; whoever waits must hear soon, and a worker well
            # within the time that a photo has: both tries of a store that hangs take
            # some ten seconds. A request that was sent twice wrote the same object
            # twice.
            "client_config": Config(
                connect_timeout=2,
                read_timeout=4,
                retries={"total_max_attempts": 2, "mode": "standard"},
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                max_pool_connections=20,
                # Checksums that other stores than AWS do not know stay off.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        }

    def prepare(self) -> None:
        """Make the bucket, where it is not there and that is allowed."""
        client = self.connection.meta.client
        try:
            with _errors_named(self.bucket_name):
                client.head_bucket(Bucket=self.bucket_name)
        except FileNotFoundError:
            with _errors_named(self.bucket_name):
                client.create_bucket(Bucket=self.bucket_name)

    def probe(self) -> None:
        """Raises ``StorageAway`` where nothing can be written: the bucket is not
        there, is full, or takes no object from us."""
        client = self.connection.meta.client
        where = {"Bucket": self.bucket_name, "Key": ".probe"}
        with _errors_named(self.bucket_name):
            client.put_object(**where, Body=b"probe")
            client.delete_object(**where)

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        if mode != "rb":
            raise ValueError("an object is written whole, by save()")
        key = self._key(name)
        with _errors_named(name):
            data = self.bucket.Object(key).get()["Body"].read()
        return File(io.BytesIO(data), name)

    def _save(self, name: str, content: File[bytes]) -> str:
        content.seek(0)
        kind = "image/jpeg" if name.endswith(".jpg") else "application/octet-stream"
        with _errors_named(name):
            self.bucket.Object(self._key(name)).put(
                Body=content.read(), ContentType=kind
            )
        return name

    def delete(self, name: str) -> None:
        with _errors_named(name):
            self.bucket.Object(self._key(name)).delete()

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        with _errors_named(name):
            return int(self.bucket.Object(self._key(name)).content_length)

    def listdir(self, name: str) -> tuple[list[str], list[str]]:
        with _errors_named(name):
            folders, names = super().listdir(name)
        return list(folders), list(names)

    def get_modified_time(self, name: str) -> datetime:
        with _errors_named(name):
            modified_at: datetime = self.bucket.Object(self._key(name)).last_modified
        return modified_at

    def url(self, name: str, *args: Any, **kwargs: Any) -> str:
        """Nobody is ever sent to the store."""
        raise NotImplementedError(f"{name} has no public address: a view hands it out")

    def _key(self, name: str) -> str:
        return str(self._normalize_name(posixpath.normpath(clean_name(name))))
