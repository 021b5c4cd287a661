"""Uploads that are too large for memory, on disk but in no folder.

A file without a name is gone with the process that holds it, in whatever way that
ends: an original with its place and time stays nowhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler

from webapp.core.storage import StorageAway


class UnnamedFileUploadHandler(FileUploadHandler):
    """Django's ``TemporaryFileUploadHandler``, but nobody can find its files, and a
    disk that others' uploads have filled is a ``StorageAway``."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        with self._room():
            self.file = UploadedFile(
                tempfile.TemporaryFile(),  # noqa: SIM115  Closed with the request.
                self.file_name,
                self.content_type,
                0,
                self.charset,
                self.content_type_extra,
            )

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        with self._room():
            self.file.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile:
        with self._room():
            self.file.seek(0)
        self.file.size = file_size
        return self.file

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Else Django closes it, which writes the rest and fails once more.
            with suppress(OSError, AttributeError):
                self.file.close()
            raise StorageAway(f"no room for an upload: {error}") from error
