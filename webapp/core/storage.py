"""Files that are whole or not there, and static files under names of their own."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from whitenoise.storage import CompressedManifestStaticFilesStorage

from ml.manifest import write_atomically


class StorageAway(OSError):
    """Files cannot be had at the moment; nothing is lost."""


class DurableFileSystemStorage(FileSystemStorage):
    """Writes beside, fsyncs and renames, so that a crash leaves no half file."""

    def prepare(self) -> None:
        """Make the folder of all files."""
        Path(self.base_location).mkdir(parents=True, exist_ok=True)

    def probe(self) -> None:
        """Raises ``StorageAway`` where nothing can be written, on a full disk say."""
        beside = Path(self.base_location) / f".probe-{secrets.token_hex(4)}"
        try:
            try:
                beside.write_bytes(b"probe")
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise StorageAway(f"{self.base_location} takes no file: {error}") from error

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        try:
            file: File[bytes] = super()._open(name, mode)  # type: ignore[misc]
        except (FileNotFoundError, IsADirectoryError):
            raise
        except OSError as error:
            # Too many open files, a network disk that hangs: it is there, but not now.
            raise StorageAway(f"{name} cannot be opened: {error}") from error
        return file

    def _save(self, name: str, content: File[bytes]) -> str:
        content.seek(0)
        path = self.path(name)
        write_atomically(Path(path), content.read())
        return name


class StaticFilesStorage(CompressedManifestStaticFilesStorage):
    """Hashed names, so that browsers may keep a file for ever; the imports between
    ES modules are rewritten to match."""

    support_js_module_import_aggregation = True
    # The packages' own style sheets name pictures that they do not ship.
    manifest_strict = False

    def url_converter(
        self,
        name: str,
        hashed_files: dict[str, str],
        template: str | None = None,
    ) -> Callable[[re.Match[str]], str]:
        """Rewrites our own modules alone: in a package's script the word ``import``
        may stand in a comment and name what is not there."""
        if name.endswith(".js") and not name.startswith("js/"):
            return lambda match: match.group()
        converter: Callable[[re.Match[str]], str] = super().url_converter(
            name, hashed_files, template
        )
        return converter
