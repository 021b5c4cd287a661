"""Files that are whole or not there, and static files under names of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
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
