"""Corrections out and in: CSV, JSON Lines, and folders with a manifest. Lossless.

One row is one Correction with everything that is known of it, so that what is
exported, deleted and imported again is the same history to the last field. Flags of
visitors travel by the hash that is kept of them. Only faces that may be used for
training leave the site.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from rest_framework import serializers
from rest_framework.settings import api_settings

from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError, NotFound
from webapp.curation.models import (
    MAX_COMMENT_LENGTH,
    MAX_DURATION_MS,
    Claim,
    ClaimStatus,
    Consensus,
    Correction,
    Source,
    Verdict,
)
from webapp.curation.services.consensus import lock_consensus, refresh_consensus
from webapp.curation.services.quality import follow_decision
from webapp.photos.models import Face
from webapp.photos.selectors import training_allowed

COLUMNS: Final = (
    "id",
    "face_id",
    "photo_id",
    "verdict",
    "source",
    "author",
    "visitor_key",
    "created_at",
    "retracted_at",
    "duration_ms",
    "key",
    "comment",
    "batch",
    "consensus",
    "agreement",
)
"""The last two are for readers: an import derives them again."""

NON_FIELD: Final = api_settings.NON_FIELD_ERRORS_KEY

MANIFEST_NAME: Final = "manifest.jsonl"
_OPEN_FOLDER: Final = "open"
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of the rows of an import; ``missing_faces`` are not on this site."""

    new: int
    known: int
    missing_faces: int


def export_rows() -> Iterator[dict[str, Any]]:
    """Every correction as plain values, in the order in which they were made."""
    rows = (
        Correction.objects.filter(training_allowed("face__photo"))
        .select_related("author", "face__consensus")
        .defer("face__crop")
        .order_by("created_at", "pk")
    )
    for row in rows.iterator(chunk_size=_BATCH):
        consensus = getattr(row.face, "consensus", None)
        yield {
            "id": str(row.pk),
            "face_id": str(row.face_id),
            "photo_id": str(row.face.photo_id),
            "verdict": row.verdict,
            "source": row.source,
            "author": row.author.username if row.author else None,
            "visitor_key": row.visitor_key or None,
            "created_at": row.created_at.isoformat(),
            "retracted_at": row.retracted_at.isoformat() if row.retracted_at else None,
            "duration_ms": row.duration_ms,
            "key": row.key or None,
            "comment": row.comment or None,
            "batch": str(row.batch) if row.batch else None,
            "consensus": (consensus.verdict or None) if consensus else None,
            "agreement": consensus.agreement if consensus else None,
        }


def export_jsonl() -> Iterator[str]:
    """One JSON object a line."""
    for row in export_rows():
        yield json.dumps(row, ensure_ascii=False) + "\n"


def export_csv() -> Iterator[str]:
    """A header and one line a correction."""
    buffer = io.StringIO()
    # Python quotes only those line ends that are its own: both of them.
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in export_rows():
        writer.writerow({name: _quoted(value) for name, value in row.items()})
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def read_jsonl(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of ``export_jsonl``; ``DomainError`` with the line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            # A number of 5,000 digits and a thousand brackets are none, either.
            reason = getattr(error, "msg", str(error))
            raise _bad_line(number, f"it is no JSON ({reason})") from error
        if not isinstance(row, dict):
            raise _bad_line(number, "it is no JSON object")
        yield row


def read_csv(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of ``export_csv``; ``DomainError`` with the line that is none."""
    reader = csv.DictReader(lines)
    try:
        missing = set(COLUMNS[:5]) - set(reader.fieldnames or ())
        if missing:
            raise DomainError(
                f"The file has no column {', '.join(sorted(missing))}.", code="bad_file"
            )
        for row in reader:
            yield {name: _unquoted(value) for name, value in row.items() if name}
    except csv.Error as error:
        raise DomainError(
            f"After line {reader.line_num} the file cannot be read: {error}.",
            code="bad_file",
        ) from error


def import_rows(*, rows: Iterable[dict[str, Any]]) -> ImportReport:
    """Enter corrections with their ids, times and people; all, or none.

    A correction that is there already is passed over, so the same file again changes
    nothing; people who are not known here come as closed accounts. Rows of faces
    that are not on this site are counted and left out. Raises ``DomainError`` for a
    row that cannot be, with its number.
    """
    parsed = [(number, _parse(raw, number)) for number, raw in enumerate(rows, start=1)]
    people: dict[str, User] = {}
    with transaction.atomic():
        fresh: dict[uuid.UUID, tuple[int, dict[str, Any]]] = {}
        for number, row in parsed:
            # A file may tell the same one twice.
            if not Correction.objects.filter(pk=row["id"]).exists():
                fresh.setdefault(row["id"], (number, row))
        # Before anything is written, and in one order: whoever votes on these faces
        # meanwhile waits, and finds what the file brought.
        here = _lock_faces({row["face_id"] for _, row in fresh.values()})
        added = [line for line in fresh.values() if line[1]["face_id"] in here]
        for number, row in added:
            _enter(number, row, people)
        judged = {
            row["face_id"]
            for _, row in added
            if row["source"] == Source.ADJUDICATOR and row["retracted_at"] is None
        }
        for face_id, consensus in here.items():
            refresh_consensus(consensus=consensus)
            if face_id in judged:
                follow_decision(consensus=consensus)
    return ImportReport(
        new=len(added),
        known=len(parsed) - len(fresh),
        missing_faces=len(fresh) - len(added),
    )


def _lock_faces(face_ids: set[uuid.UUID]) -> dict[uuid.UUID, Consensus]:
    """The locked consensus of each of the faces that is on this site."""
    here = {}
    for face_id in sorted(face_ids):
        with suppress(NotFound):
            here[face_id] = lock_consensus(face_id=face_id)
    return here


def _enter(number: int, row: dict[str, Any], people: dict[str, User]) -> None:
    """Add one correction, of a locked face. Raises ``DomainError``."""
    author = _author(row.pop("author"), row["source"], people)
    created_at = row.pop("created_at")
    try:
        with transaction.atomic():
            correction = Correction.objects.create(author=author, **row)
            Correction.objects.filter(pk=correction.pk).update(created_at=created_at)
    except IntegrityError as error:
        raise _bad_line(
            number,
            "this person has said something of this face already, or another "
            "adjudicator has decided it; have that taken back, or leave the row out",
        ) from error
    if author is not None and row["retracted_at"] is None:
        # They have said what they see: it is before them no more.
        Claim.objects.filter(
            face_id=row["face_id"], person=author, status=ClaimStatus.HELD
        ).delete()


def export_zip(*, target: IO[bytes]) -> None:
    """Faces as pictures in a folder for each label, with a manifest that holds their
    whole history, as one archive: no picture comes on disk by itself.

    ``mien/happy/<face id>.png`` and so on; faces without a decision lie in ``open``.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _folder_files():
            archive.writestr(f"mien/{name}", data)


def _folder_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of each, the manifest last."""
    history: dict[str, list[dict[str, Any]]] = {}
    for row in export_rows():
        history.setdefault(row["face_id"], []).append(row)
    lines = []
    keys = list(history)
    for start in range(0, len(keys), _BATCH):
        faces = Face.objects.filter(pk__in=keys[start : start + _BATCH])
        for face in faces.only("crop"):
            rows = history[str(face.pk)]
            label = rows[0]["consensus"] or _OPEN_FOLDER
            name = f"{label}/{face.pk}.png"
            yield name, bytes(face.crop)
            lines.append(json.dumps({"file": name, "corrections": rows}))
    yield MANIFEST_NAME, ("\n".join(lines) + "\n").encode()


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the folder that an archive of ``export_zip`` unpacks to."""
    try:
        text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise DomainError(
            f"{folder / MANIFEST_NAME} cannot be read: {error}", code="bad_file"
        ) from error
    for number, entry in enumerate(read_jsonl(text.splitlines()), start=1):
        rows = entry.get("corrections")
        if not isinstance(rows, list):
            raise _bad_line(number, "its corrections are no list")
        yield from rows


class _Row(serializers.Serializer[Any]):
    """A row as a file may hold it: of the right kind, and no longer than we keep."""

    id = serializers.UUIDField()
    face_id = serializers.UUIDField()
    verdict = serializers.ChoiceField(choices=Verdict.choices)
    source = serializers.ChoiceField(choices=Source.choices)  # type: ignore[assignment]
    author = serializers.CharField(default=None, allow_null=True, allow_blank=True)
    visitor_key = serializers.CharField(
        default=None, allow_null=True, allow_blank=True, max_length=64
    )
    created_at = serializers.DateTimeField()
    retracted_at = serializers.DateTimeField(default=None, allow_null=True)
    duration_ms = serializers.IntegerField(
        default=None, allow_null=True, min_value=0, max_value=MAX_DURATION_MS
    )
    key = serializers.CharField(
        default=None,
        allow_null=True,
        allow_blank=True,
        max_length=16,
        trim_whitespace=False,
    )
    comment = serializers.CharField(
        default=None,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_COMMENT_LENGTH,
        trim_whitespace=False,
    )
    batch = serializers.UUIDField(default=None, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        of_visitor = attrs["source"] == Source.VISITOR
        if of_visitor != bool(attrs["visitor_key"]):
            raise serializers.ValidationError(
                "a visitor's row has a visitor_key, and no other has one"
            )
        if not (of_visitor or attrs["author"]):
            raise serializers.ValidationError("it has no author")
        return attrs


def _parse(raw: dict[str, Any], number: int) -> dict[str, Any]:
    row = _Row(data=raw)
    if not row.is_valid():
        raise _bad_line(
            number,
            "; ".join(
                " ".join(str(word) for word in words).rstrip(".")
                if field == NON_FIELD
                else f"{field}: {' '.join(str(word) for word in words)}".rstrip(".")
                for field, words in row.errors.items()
            ),
        )
    found: dict[str, Any] = row.validated_data
    return found | {
        name: found[name] or "" for name in ("visitor_key", "key", "comment")
    }


def _author(name: str | None, source: str, people: dict[str, User]) -> User | None:
    if source == Source.VISITOR or name is None:
        return None
    if name not in people:
        person = User.objects.filter(username=name).first()
        if person is None:
            person = User(username=name, role=Role.ANNOTATOR, is_active=False)
            person.set_unusable_password()
            try:
                person.full_clean(exclude=["password"])
            except ValidationError as error:
                raise DomainError(
                    f"The name {name!r} will not do: {' '.join(error.messages)}",
                    code="bad_file",
                ) from error
            person.save()
        people[name] = person
    return people[name]


def _quoted(value: Any) -> Any:
    """A spreadsheet would run text that begins like a formula."""
    if isinstance(value, str) and value.startswith(tuple("=+-@'\t\r\n")):
        return f"'{value}"
    return value


def _unquoted(text: str | None) -> str | None:
    return text.removeprefix("'") or None if text else None


def _bad_line(number: int, reason: str) -> DomainError:
    return DomainError(f"Row {number} cannot be used: {reason}.", code="bad_file")
