"""Files that are whole or not there, and static files under names of their own."""

from __future__ import annotations

from pathlib import Path

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from whitenoise.storage import CompressedManifestStaticFilesStorage

from ml.manifest import write_atomically


class DurableFileSystemStorage(FileSystemStorage):
    """Writes beside, fsyncs and renames, so that a crash leaves no half file."""

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
