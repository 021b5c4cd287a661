"""A visitor's receipt: a secret page that follows a Flag into the model."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from webapp.core.errors import NotFound
from webapp.curation.models import Consensus, ConsensusState, Correction, Source
from webapp.photos.models import Photo, Prediction
from webapp.photos.selectors import EMOTION_WORDS
from webapp.registry.selectors import get_champion

VERDICT_WORDS = {
    **EMOTION_WORDS,
    "unclear": "Unclear",
    "not_a_face": "Not a face",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a flag's way. ``done_at`` is null while it lies ahead."""

    code: str
    title: str
    words: str
    done: bool
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a flag so far; ``steps`` in their order."""

    flag: Correction
    verdict_word: str
    model_said: str
    model_says: str
    steps: tuple[Step, ...]

    @property
    def photo(self) -> Photo:
        return self.flag.face.photo


TrainedStep = Callable[[Correction], Step | None]


def no_training(flag: Correction) -> Step | None:
    """Where nothing is trained nothing more can be told."""
    return None


trained_step: TrainedStep = no_training
"""What became of the face after its review. Training lies above this room and puts
its own in place as the site starts."""


def receipt_secret(flag_id: uuid.UUID) -> str:
    """160 bits in hex, derived from the site's secret key: nothing is stored."""
    digest = hmac.new(
        settings.SECRET_KEY.encode(), b"receipt:" + flag_id.bytes, hashlib.sha256
    )
    return digest.hexdigest()[:40]


def get_receipt(*, flag_id: uuid.UUID, secret: str) -> Receipt:
    """The receipt, for who holds its secret; else ``NotFound``.

    A flag that was taken back, and one whose photo was deleted, have none any more:
    nothing of them is left to follow.
    """
    if not hmac.compare_digest(receipt_secret(flag_id).encode(), secret.encode()):
        raise _not_found()
    flag = (
        Correction.objects.filter(
            pk=flag_id, source=Source.VISITOR, retracted_at__isnull=True
        )
        .select_related("face__photo")
        .first()
    )
    if flag is None:
        raise _not_found()
    consensus = Consensus.objects.filter(face=flag.face_id).first()
    served = _prediction(flag, flag.face.photo.model_version_id)
    champion = get_champion()
    latest = _prediction(flag, champion.pk) if champion else None
    return Receipt(
        flag=flag,
        verdict_word=VERDICT_WORDS[flag.verdict],
        model_said=_label_word(served),
        model_says=_label_word(latest),
        steps=_steps(flag, consensus),
    )


def _steps(flag: Correction, consensus: Consensus | None) -> tuple[Step, ...]:
    may_train = flag.face.photo.may_train
    decided = consensus is not None and consensus.state == ConsensusState.DECIDED
    if not may_train:
        waiting = (
            "Nobody looks at it, for you have not allowed its use. You can on the "
            "photo's page."
        )
    elif consensus is not None and consensus.state == ConsensusState.DISPUTED:
        waiting = "People disagree about this face: somebody decides between them."
    else:
        waiting = "People look at the face without knowing what you or the model said."
    verdict = VERDICT_WORDS[consensus.verdict].lower() if consensus and decided else ""
    agreed = (
        "as you did"
        if consensus and consensus.verdict == flag.verdict
        else ("unlike you")
    )
    return (
        Step(
            "received",
            "Received",
            f"You said: {VERDICT_WORDS[flag.verdict].lower()}.",
            done=True,
            done_at=flag.created_at,
        ),
        Step(
            "reviewed",
            "Reviewed by people",
            f"They said {verdict}, {agreed}." if decided else waiting,
            done=decided,
            done_at=consensus.decided_at if consensus and decided else None,
        ),
        trained_step(flag)
        or Step(
            "trained",
            "Learned from",
            "It is taken into the next data set that the model is trained on."
            if decided and may_train
            else "This comes after the review.",
            done=False,
        ),
    )


def _prediction(flag: Correction, version_id: uuid.UUID | None) -> Prediction | None:
    return Prediction.objects.filter(
        face=flag.face_id, model_version=version_id
    ).first()


def _label_word(prediction: Prediction | None) -> str:
    if prediction is None:
        return ""
    if prediction.not_sure:
        return "Not sure"
    label = max(EMOTION_WORDS, key=lambda emotion: float(getattr(prediction, emotion)))
    return EMOTION_WORDS[label]


def _not_found() -> NotFound:
    return NotFound(
        "There is no such receipt. Its photo may have been deleted, or the flag taken "
        "back: then nothing is left to follow."
    )
