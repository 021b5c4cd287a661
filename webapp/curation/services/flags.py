"""A visitor says that the model is wrong: a Flag. It asks people, and never trains."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from webapp.core.errors import DomainError
from webapp.curation.models import (
    MAX_COMMENT_LENGTH,
    Correction,
    Reason,
    Source,
    Verdict,
)
from webapp.curation.services.queue import enqueue_faces
from webapp.photos.models import Face
from webapp.photos.services.erasure import lock_photo


def submit_flag(
    *, face: Face, visitor_key: str, verdict: str, comment: str = ""
) -> Correction:
    """A visitor's word on a face of a photo that they may see.

    The same again changes nothing, nor does the verdict alone where a comment was
    given with it; another word or comment takes the place of the first. With
    consent the face comes onto the queue at once; should consent come later, the
    queue finds it. Raises ``DomainError`` for a verdict that is none, and ``NotFound``
    where the photo was deleted meanwhile.
    """
    if verdict not in Verdict.values:
        raise DomainError(
            f"A verdict is one of {', '.join(Verdict.values)}, not {verdict[:40]!r}.",
            code="bad_verdict",
        )
    if not visitor_key:
        raise DomainError("A flag needs its visitor.", code="no_visitor")
    comment = comment[:MAX_COMMENT_LENGTH]
    with transaction.atomic():
        # Two clicks at once wait for each other.
        lock_photo(photo_id=face.photo_id)
        mine = Correction.objects.filter(
            face=face, visitor_key=visitor_key, retracted_at__isnull=True
        )
        current = mine.first()
        if (
            current is not None
            and current.verdict == verdict
            and comment in ("", current.comment)
        ):
            return current
        mine.update(retracted_at=timezone.now())
        flag = Correction.objects.create(
            face=face,
            visitor_key=visitor_key,
            verdict=verdict,
            source=Source.VISITOR,
            comment=comment,
        )
        enqueue_faces(face_ids=[face.pk], reason=Reason.FLAG)
    return flag


def retract_flag(*, face: Face, visitor_key: str) -> bool:
    """Take a flag back; False where there is none. The face stays on the queue:
    somebody may be looking at it."""
    return bool(
        Correction.objects.filter(
            face=face, visitor_key=visitor_key, retracted_at__isnull=True
        ).update(retracted_at=timezone.now())
    )
