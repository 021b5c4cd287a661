"""A data folder is looked through, and its suspect faces come onto the queue.

In the background and in small steps: every step is one transaction, the row says how
many faces came of it, and a folder that is looked through again passes over what is
here.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
from celery import current_app
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import OperationalError
from PIL import Image

from ml.consensus import NO_LABEL
from ml.data import SPLITS, DataError, files_of_split, find_layout
from ml.images import ImageRefused, decode_image, encode_jpeg, read_file
from ml.labels import EMOTIONS
from ml.manifest import InputSpec
from ml.preprocessing import UInt8Array, crop_faces, whole_picture
from ml.quality import face_quality
from ml.types import DetectedFace, FaceQuality
from webapp.accounts.models import Role, User
from webapp.core.errors import DomainError
from webapp.curation.models import (
    MAX_FOLDER_LENGTH,
    Correction,
    DatasetImport,
    GoldFace,
    Reason,
    Source,
    Verdict,
)
from webapp.curation.services.quality import add_gold
from webapp.curation.services.queue import IMPORTED, enqueue_faces
from webapp.photos.models import Face, Photo, PhotoStatus, Prediction
from webapp.photos.services.intake import STORED_MAX_SIDE_PX, new_file_name
from webapp.photos.services.serving import NoModelServes, ServingModel, model_server

SUSPECT_BELOW: Final = 0.2
"""A folder's label is suspect where the model gives it less and another one more."""

SURE_FROM: Final = 0.98
"""A face may be gold where folder and model agree, and the model is as sure."""

IMPORT_TASK: Final = "webapp.curation.tasks.import_dataset"
IMPORT_QUEUE: Final = "training"
"""The queue for what takes long: one at a time, and nobody's photo waits for it."""

MAX_ATTEMPTS: Final = 3
_STEP: Final = 64
_STALE_AFTER: Final = timedelta(minutes=2)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """``everything`` queues every face and not the suspect ones alone; ``limit``
    ends after so many queued faces (0: none); ``gold`` makes so many gold faces."""

    split: str = "train"
    everything: bool = False
    limit: int = 0
    gold: int = 0


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is kept of a file until its step is over: its pixels, of 64 files at once,
    are too many. ``crop`` is uint8 (size_px, size_px, channels), as the model takes
    it; ``face`` is all of the picture, in pixels of ``jpeg``."""

    mark: str
    label: int
    face: DetectedFace
    quality: FaceQuality
    crop: UInt8Array
    jpeg: bytes


def start_dataset_import(
    *, folder: Path, options: ImportOptions, started_by: User | None
) -> DatasetImport:
    """Have a folder looked through in the background.

    Raises ``DomainError`` where it is no data folder, before anything begins.
    """
    if options.split not in SPLITS:
        raise DomainError(
            f"A split is one of {', '.join(SPLITS)}, not {options.split!r}.",
            code="bad_split",
        )
    if options.split == "test":
        raise DomainError(
            "The test split judges models: its faces are not labelled here.",
            code="bad_split",
        )
    if options.limit < 0 or options.gold < 0:
        raise DomainError(
            "A limit and a number of gold faces are 0 or more.", code="bad_count"
        )
    _list(folder, options)
    path = _path_of(folder)
    with transaction.atomic():
        row = DatasetImport.objects.create(
            folder=path,
            options=asdict(options),
            started_by=started_by,
        )
        transaction.on_commit(lambda: _wake(row.pk), robust=True)
    return row


def claim_dataset_import(*, import_id: uuid.UUID) -> DatasetImport | None:
    """Take a waiting import; None where somebody else has it."""
    claimed = DatasetImport.objects.filter(
        pk=import_id, status=DatasetImport.Status.QUEUED
    ).update(
        status=DatasetImport.Status.RUNNING,
        attempts=F("attempts") + 1,
        heartbeat_at=timezone.now(),
    )
    return DatasetImport.objects.get(pk=import_id) if claimed else None


def run_dataset_import(*, dataset_import: DatasetImport) -> None:
    """Look a claimed folder through to its end, or fail it with the reason."""
    row = dataset_import
    options = ImportOptions(**row.options)
    try:
        serving = model_server.champion()
        files = _list(Path(row.folder), options)
        _update(row, total=len(files))
        for start in range(0, len(files), _STEP):
            if 0 < options.limit <= row.queued_faces:
                break
            _take(files[start : start + _STEP], row, options, serving)
            end = min(start + _STEP, len(files))
            # What a worker before this one has seen as well is no progress.
            _update(row, **({"seen": end, "attempts": 0} if end > row.seen else {}))
    except (DomainError, NoModelServes, OSError) as error:
        logger.error("import of %s failed: %s", row.folder, error)
        _update(
            row,
            status=DatasetImport.Status.FAILED,
            message=str(error)[:1000],
            done_at=timezone.now(),
        )
        return
    _update(row, status=DatasetImport.Status.DONE, done_at=timezone.now())


def sweep_dataset_imports() -> int:
    """Set going what stands still: lost messages and dead workers; how many. An import
    of which three workers died at one place fails."""
    stale = timezone.now() - _STALE_AFTER
    dead = DatasetImport.objects.filter(
        status=DatasetImport.Status.RUNNING, heartbeat_at__lt=stale
    )
    dead.filter(attempts__gte=MAX_ATTEMPTS).update(
        status=DatasetImport.Status.FAILED,
        message=(
            f"{MAX_ATTEMPTS} workers died at the same files of it. Look at their log "
            "and at the memory of their host, then import the folder again: what is "
            "here already is passed over."
        ),
        done_at=timezone.now(),
    )
    dead.update(status=DatasetImport.Status.QUEUED)
    waiting = list(
        DatasetImport.objects.filter(
            status=DatasetImport.Status.QUEUED, created_at__lt=stale
        )
    )
    for row in waiting:
        _wake(row.pk)
    return len(waiting)


def _path_of(folder: Path) -> str:
    """As the row keeps it."""
    path = str(folder.resolve())
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DomainError(
            f"The name {path!r} is no UTF-8. Please rename the folder.",
            code="bad_folder",
        ) from error
    if len(path) > MAX_FOLDER_LENGTH:
        raise DomainError(
            f"The folder's path is longer than {MAX_FOLDER_LENGTH} letters. Please "
            "move it.",
            code="bad_folder",
        )
    return path


def _list(folder: Path, options: ImportOptions) -> list[tuple[Path, int]]:
    try:
        layout = find_layout(folder, needed=(options.split,))  # type: ignore[arg-type]
        return list(files_of_split(layout, options.split))  # type: ignore[arg-type]
    except DataError as error:
        raise DomainError(str(error), code="bad_folder") from error
    except OSError as error:
        raise DomainError(
            f"{folder} cannot be looked through: {error.strerror or error}.",
            code="bad_folder",
        ) from error


def _take(
    files: Sequence[tuple[Path, int]],
    row: DatasetImport,
    options: ImportOptions,
    serving: ServingModel,
) -> None:
    """One step: faces come onto the queue or become gold, as many as are wanted yet."""
    spec = serving.classifier.manifest.input
    read = [_read(path, label, spec) for path, label in files]
    fresh = {picture.mark: picture for picture in read if picture is not None}
    if not fresh:
        return
    crops = np.stack([picture.crop for picture in fresh.values()])
    reading = serving.classifier.read_crops(crops)
    activations = serving.classifier.class_activation(reading.feature_map)
    with transaction.atomic():
        # Counted from what is there: a worker that died, or one that is slow and was
        # taken for dead, has done a part of it.
        row.refresh_from_db(
            fields=["queued_faces"],
            from_queryset=DatasetImport.objects.select_for_update(),
        )
        golds_left = options.gold - _count_golds(row)
        faces_left = options.limit - row.queued_faces if options.limit else _STEP
        faces: list[uuid.UUID] = []
        folder_account = _folder_account(Path(row.folder))
        for index, picture in enumerate(fresh.values()):
            if len(faces) >= faces_left:
                break
            scores, label = reading.scores[index], picture.label
            belief = scores.probabilities[label] if label != NO_LABEL else 1.0
            suspect = belief < SUSPECT_BELOW and scores.confidence > belief
            is_gold = golds_left > 0 and label != NO_LABEL and belief >= SURE_FROM
            if not (suspect or options.everything or is_gold):
                continue
            face = _enter(picture, row, serving)
            Prediction.objects.create(
                face=face,
                model_version=serving.version,
                not_sure=scores.not_sure,
                activation=activations[index].astype("<f2").tobytes(),
                **scores.by_emotion(),
            )
            if label != NO_LABEL:
                Correction.objects.create(
                    face=face,
                    author=folder_account,
                    verdict=EMOTIONS[label].value,
                    source=Source.IMPORT,
                )
            if is_gold:
                verdict = Verdict(EMOTIONS[label].value)
                add_gold(face_id=face.pk, verdict=verdict, chosen_by=row.started_by)
                golds_left -= 1
            else:
                faces.append(face.pk)
        queued = enqueue_faces(face_ids=faces, reason=Reason.SUSPECT)
        _update(row, queued_faces=row.queued_faces + queued)


def _count_golds(row: DatasetImport) -> int:
    """Gold faces that this import has made; those that people chose of the same
    folder were put on the queue first."""
    made = GoldFace.objects.filter(
        face__photo__visitor_key=_visitor_key(row), created_at__gte=row.created_at
    )
    return made.exclude(face__queue_item__reason=Reason.SUSPECT).count()


def _read(path: Path, label: int, spec: InputSpec) -> _Picture | None:
    """None where it is here already, and where it cannot be used. Raises
    ``FileNotFoundError`` where its folder is gone."""
    try:
        data = read_file(path)
        mark = _mark(data)
        if Photo.objects.filter(idempotency_hash=mark).exists():
            return None
        image = decode_image(data, STORED_MAX_SIDE_PX).pixels
    except (ImageRefused, OSError) as error:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent} is there no more.") from error
        logger.warning("%s is passed over: %s", path, error)
        return None
    face = whole_picture(image)
    return _Picture(
        mark=mark,
        label=label,
        face=face,
        quality=face_quality(image, face),
        crop=crop_faces(image, [face], spec)[0],
        jpeg=encode_jpeg(image),
    )


def _enter(picture: _Picture, row: DatasetImport, serving: ServingModel) -> Face:
    box, now = picture.face.box, timezone.now()
    name = default_storage.save(new_file_name(), ContentFile(picture.jpeg))
    photo = Photo.objects.create(
        visitor_key=_visitor_key(row),
        file_name=name,
        width_px=int(box.width),
        height_px=int(box.height),
        faces_found=1,
        status=PhotoStatus.DONE,
        model_version=serving.version,
        queued_at=now,
        done_at=now,
        # Whoever imports a folder answers for the right to train on it.
        training_consent_at=now,
        consent_version=IMPORTED,
        idempotency_hash=picture.mark,
        upload_sha256=picture.mark,
    )
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(picture.crop)).save(buffer, "PNG")
    return Face.objects.create(
        photo=photo,
        index=1,
        x=box.x,
        y=box.y,
        width=box.width,
        height=box.height,
        detector_score=picture.face.score,
        assumed=True,
        quality=asdict(picture.quality),
        crop=buffer.getvalue(),
    )


def _folder_account(folder: Path) -> User:
    """A closed account that speaks for the folder: its label is one opinion."""
    word = re.sub(r"[^\w.+-]", "-", folder.name)[:100] or "data"
    person, _ = User.objects.get_or_create(
        username=f"folder-{word}",
        defaults={"role": Role.ANNOTATOR, "is_active": False, "password": "!"},
    )
    return person


def _visitor_key(row: DatasetImport) -> str:
    return hashlib.sha256(f"import:{row.folder}".encode()).hexdigest()


def _mark(data: bytes) -> str:
    """One for each file's bytes: the same picture comes in once."""
    return hashlib.sha256(b"dataset:" + data).hexdigest()


def _update(row: DatasetImport, **fields: object) -> None:
    for name, value in fields.items():
        setattr(row, name, value)
    row.heartbeat_at = timezone.now()
    row.save(update_fields=[*fields, "heartbeat_at"])


def _wake(import_id: uuid.UUID) -> None:
    try:
        current_app.send_task(
            IMPORT_TASK, args=[str(import_id)], queue=IMPORT_QUEUE, retry=False
        )
    except (OperationalError, OSError) as error:
        logger.warning("broker away, the sweep will start the import: %s", error)
