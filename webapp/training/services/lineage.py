"""Which version learned from what: so that erasure reaches models."""

from __future__ import annotations

import uuid

from webapp.registry.models import ModelVersion
from webapp.training.models import Mode, RunState, Split, TrainingRun
from webapp.training.services.snapshots import gone_faces


def versions_with_gone_faces() -> dict[uuid.UUID, int]:
    """Versions that learned from faces which may not be used any more, by id, and
    from how many; also by way of the version that they started from."""
    by_snapshot: dict[uuid.UUID, set[uuid.UUID]] = {}
    rows = gone_faces().filter(split=Split.TRAIN)
    for snapshot_id, key in rows.values_list("snapshot_id", "face_key").iterator():
        by_snapshot.setdefault(snapshot_id, set()).add(key)
    if not by_snapshot:
        return {}
    gone: dict[uuid.UUID, set[uuid.UUID]] = {}
    runs = TrainingRun.objects.filter(state=RunState.DONE).order_by("number")
    for candidate, start, snapshot, left_out in runs.values_list(
        "candidate_id", "start_id", "snapshot_id", "report__left_out"
    ):
        assert candidate is not None  # The database says so of what is done.
        assert snapshot is not None
        # Runs before there was such a list have none.
        known = {uuid.UUID(key) for key in left_out or ()}
        own = by_snapshot.get(snapshot, set()) - known
        learned = gone.get(start, set()) | own
        if learned:
            gone[candidate] = learned
    return {version: len(faces) for version, faces in gone.items()}


def choose_start(*, champion: ModelVersion, mode: Mode) -> ModelVersion:
    """The version that a run starts from.

    A head run starts from the head that its body was trained with, so that what a
    model knows follows from the data set alone: a face that has left it is
    forgotten. A full run starts from the champion. Either goes back further, to the
    nearest version that learned from no face which may not be used any more.
    """
    start = champion
    # Two runs that did the same made the same file, and each is its own origin.
    if mode == Mode.HEAD and champion.sha256 != champion.body_sha256:
        origin = ModelVersion.objects.filter(sha256=champion.body_sha256).first()
        start = origin or champion
    gone = versions_with_gone_faces()
    while start.pk in gone:
        run = TrainingRun.objects.select_related("start").get(candidate=start)
        start = run.start
    return start
