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
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.dateparse import parse_datetime

from ml.manifest import write_atomically
from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError
from webapp.curation.models import Correction, Source, Verdict
from webapp.curation.services.consensus import refresh_faces
from webapp.photos.models import Face

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
        Correction.objects.filter(face__photo__training_consent_at__isnull=False)
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
        # A spreadsheet would run a comment that begins like a formula.
        row["comment"] = _quoted(row["comment"])
        writer.writerow(row)
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
        except json.JSONDecodeError as error:
            raise _bad_line(number, f"it is no JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise _bad_line(number, "it is no JSON object")
        yield row


def read_csv(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of ``export_csv``."""
    reader = csv.DictReader(lines)
    missing = set(COLUMNS[:5]) - set(reader.fieldnames or ())
    if missing:
        raise DomainError(
            f"The file has no column {', '.join(sorted(missing))}.", code="bad_file"
        )
    for row in reader:
        row = {key: value or None for key, value in row.items() if key}
        row["comment"] = _unquoted(row.get("comment"))
        yield row


def import_rows(*, rows: Iterable[dict[str, Any]]) -> ImportReport:
    """Enter corrections with their ids, times and people; all, or none.

    A correction that is there already is passed over, so the same file again changes
    nothing; people who are not known here come as closed accounts. Rows of faces
    that are not on this site are counted and left out. Raises ``DomainError`` for a
    row that cannot be, with its number.
    """
    new = known = missing = 0
    people: dict[str, User] = {}
    touched: set[uuid.UUID] = set()
    with transaction.atomic():
        for number, raw in enumerate(rows, start=1):
            row = _parse(raw, number)
            if Correction.objects.filter(pk=row["id"]).exists():
                known += 1
                continue
            if not Face.objects.filter(pk=row["face_id"]).exists():
                missing += 1
                continue
            author = _author(row.pop("author"), row["source"], people)
            created_at = row.pop("created_at")
            try:
                with transaction.atomic():
                    correction = Correction.objects.create(author=author, **row)
                    Correction.objects.filter(pk=correction.pk).update(
                        created_at=created_at
                    )
            except IntegrityError as error:
                raise _bad_line(
                    number, "this person has said something of this face already"
                ) from error
            new += 1
            touched.add(row["face_id"])
        refresh_faces(face_ids=sorted(touched))
    return ImportReport(new, known, missing)


def export_folder(*, folder: Path) -> int:
    """Faces as pictures in a folder for each label, with a manifest that holds their
    whole history; how many faces.

    ``folder/happy/<face id>.png`` and so on; faces without a decision lie in
    ``open``. The folders are a data set that training reads as it is.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DomainError(f"{folder} is not empty.", code="folder_not_empty")
    folder.mkdir(parents=True, exist_ok=True)
    history: dict[str, list[dict[str, Any]]] = {}
    for row in export_rows():
        history.setdefault(row["face_id"], []).append(row)
    lines = []
    for face in Face.objects.filter(pk__in=list(history)).select_related("consensus"):
        rows = history[str(face.pk)]
        label = rows[0]["consensus"] or _OPEN_FOLDER
        name = f"{label}/{face.pk}.png"
        (folder / label).mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(face.crop))
        lines.append(json.dumps({"file": name, "corrections": rows}))
    write_atomically(folder / MANIFEST_NAME, ("\n".join(lines) + "\n").encode())
    return len(lines)


def read_folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of a folder that ``export_folder`` wrote."""
    try:
        text = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    except OSError as error:
        raise DomainError(
            f"{folder / MANIFEST_NAME} cannot be read: {error}", code="bad_file"
        ) from error
    for entry in read_jsonl(text.splitlines()):
        yield from entry.get("corrections", [])


def write_zip(*, folder: Path, target: IO[bytes]) -> None:
    """Everything below a folder as one archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with (
                    path.open("rb") as source,
                    archive.open(path.relative_to(folder).as_posix(), "w") as sink,
                ):
                    shutil.copyfileobj(source, sink)


def _parse(raw: dict[str, Any], number: int) -> dict[str, Any]:
    try:
        created_at = parse_datetime(str(raw["created_at"]))
        retracted = raw.get("retracted_at")
        duration = raw.get("duration_ms")
        row = {
            "id": uuid.UUID(str(raw["id"])),
            "face_id": uuid.UUID(str(raw["face_id"])),
            "verdict": Verdict(raw["verdict"]),
            "source": Source(raw["source"]),
            "author": raw.get("author"),
            "visitor_key": raw.get("visitor_key") or "",
            "created_at": created_at,
            "retracted_at": parse_datetime(str(retracted)) if retracted else None,
            "duration_ms": int(duration) if duration is not None else None,
            "key": raw.get("key") or "",
            "comment": raw.get("comment") or "",
            "batch": uuid.UUID(str(raw["batch"])) if raw.get("batch") else None,
        }
    except (KeyError, ValueError, TypeError) as error:
        raise _bad_line(number, str(error)) from error
    if created_at is None:
        raise _bad_line(number, "created_at is no time")
    return row


def _author(name: str | None, source: Source, people: dict[str, User]) -> User | None:
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


def _quoted(comment: str | None) -> str | None:
    return f"'{comment}" if comment and comment[0] in "=+-@'\t\r" else comment


def _unquoted(comment: str | None) -> str | None:
    return comment[1:] if comment and comment[0] == "'" else comment


def _bad_line(number: int, reason: str) -> DomainError:
    return DomainError(f"Row {number} cannot be used: {reason}.", code="bad_file")
