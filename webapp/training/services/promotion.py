"""Who serves: a candidate is promoted, or the version before it comes back."""

from __future__ import annotations

import unicodedata
from typing import Final

from ml.inference import EmotionClassifier
from ml.manifest import ManifestError, ModelFileError
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import Conflict, NotAllowed
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import get_champion, read_model_file
from webapp.registry.services import promote_model_version
from webapp.training.errors import ReasonNeeded
from webapp.training.models import GateOutcome, TrainingRun
from webapp.training.services.base import check_answers
from webapp.training.services.lineage import versions_with_gone_faces

MAX_REASON_LENGTH: Final = 1000

_BLANK_SIGNS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""What Unicode counts as letters or symbols and nobody sees: fillers of Hangul, Braille
without a dot."""


def looked_at_champion(*, name: str) -> ModelVersion | None:
    """The champion, where that is the one that somebody has looked at and decided
    against; None where they were shown that there is none.

    Raises ``Conflict`` for any other name.
    """
    champion = get_champion()
    serving = champion.version if champion else ""
    if name != serving:
        raise Conflict(
            f"Version {serving} has become champion meanwhile. Look at it, and decide "
            "anew."
            if serving
            else "No version serves by now. Look at the versions, and decide anew."
        )
    return champion


def given_reason(text: str) -> str:
    """A reason as it is kept; empty where there is nothing in it to be read."""
    can_be_read = any(
        unicodedata.category(sign)[0] in "LNPS" and sign not in _BLANK_SIGNS
        for sign in text
    )
    return text.strip()[:MAX_REASON_LENGTH] if can_be_read else ""


def why_reason_is_needed(
    version: ModelVersion, run: TrainingRun | None, champion: ModelVersion | None
) -> str:
    """Why a person must say why a version should serve; empty where the gate's word is
    enough. ``run`` is the one that made it, ``champion`` the version it would follow.
    """
    if run is None:
        return f"The gate has not judged version {version.version} here."
    if run.outcome != GateOutcome.PROMOTE:
        findings: list[dict[str, str]] = run.decision.get("findings", [])
        first = findings[0]["reason"] if findings else ""
        word = "is undecided" if run.outcome == GateOutcome.HOLD else "rejects it"
        return f"The gate {word}. {first}".strip()
    if champion is not None and champion.pk != run.parent_id:
        return (
            f"The gate compared version {version.version} with {run.parent.version}, "
            f"but {champion.version} serves by now: train again."
        )
    if gone := versions_with_gone_faces().get(version.pk):
        return (
            f"Of the faces that version {version.version} learned from, {gone} may not "
            "be used any more: retrain without them."
        )
    return ""


def promote_version(
    *,
    model_version: ModelVersion,
    promoted_by: User | None,
    reason: str = "",
    expected_champion: ModelVersion | None = None,
) -> Promotion:
    """Make a version the champion; every worker asks for it before its next photo.

    ``promoted_by`` is None for the automatic promotion and the command line.
    ``expected_champion`` is the one that the decision was made against, by default
    the one that serves now: where another one does by the time of writing, nothing
    happens, so that of two promotions at once one wins.

    Raises:
        NotAllowed: ``promoted_by`` is no admin.
        ReasonNeeded: No reason is given, and ``why_reason_is_needed``.
        Conflict: It serves already, its file does not load, or another version has
            become champion meanwhile.
        StorageAway: Its file cannot be had at the moment.
    """
    if promoted_by is not None and not has_role(promoted_by, Role.ADMIN):
        raise NotAllowed("Only an admin decides which version serves.")
    reason = given_reason(reason)
    expected = expected_champion or get_champion()
    if not reason:
        run = TrainingRun.objects.filter(candidate=model_version).first()
        if why := why_reason_is_needed(model_version, run, expected):
            raise ReasonNeeded(f"{why} Please say why it should serve nevertheless.")
        assert run is not None
        reason = f"The gate said promote (run {run.number})."
    _check_loads(model_version)
    promotion = promote_model_version(
        model_version=model_version,
        promoted_by=promoted_by,
        reason=reason,
        expected=expected,
    )
    if promotion is None:
        raise Conflict(f"Version {model_version.version} serves already.")
    return promotion


def roll_back(
    *,
    rolled_back_by: User | None,
    reason: str = "",
    expected_champion: ModelVersion | None = None,
) -> Promotion:
    """Bring back the version that served before the champion was first promoted.

    Rolling back again goes one further back. ``expected_champion`` is the one that is
    to serve no longer, by default the one that serves now: of two that roll back at
    once, the second goes no further.

    Raises:
        NotAllowed: ``rolled_back_by`` is no admin.
        Conflict: There is none before it, its file does not load, or another version
            has become champion meanwhile.
        StorageAway: The file cannot be had at the moment.
    """
    if rolled_back_by is not None and not has_role(rolled_back_by, Role.ADMIN):
        raise NotAllowed("Only an admin decides which version serves.")
    champion = expected_champion or get_champion()
    target = version_before()
    if champion is None or target is None:
        raise Conflict("There is no earlier version to go back to.")
    _check_loads(target)
    words = f"Rolled back from {champion.version}."
    promotion = promote_model_version(
        model_version=target,
        promoted_by=rolled_back_by,
        reason=f"{words} {given_reason(reason)}".strip(),
        expected=champion,
    )
    if promotion is None:
        raise Conflict(f"Version {target.version} serves already.")
    return promotion


def version_before() -> ModelVersion | None:
    """Where a rollback leads: the versions lie on a pile, and going back to one takes
    those above it off."""
    pile: list[ModelVersion] = []
    for promotion in Promotion.objects.select_related("model_version").order_by(
        "created_at"
    ):
        version = promotion.model_version
        if version in pile:
            del pile[pile.index(version) + 1 :]
        else:
            pile.append(version)
    return pile[-2] if len(pile) > 1 else None


def _check_loads(model_version: ModelVersion) -> None:
    try:
        check_answers(EmotionClassifier(*read_model_file(model_version)))
    except (ManifestError, ModelFileError) as error:
        raise Conflict(
            f"Version {model_version.version} cannot serve: {error}. The champion "
            "stays. Restore that file, or promote another version."
        ) from error
