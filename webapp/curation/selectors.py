"""What pages and the API read of curation."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Final

import numpy as np
import numpy.typing as npt
from django.db.models import (
    Count,
    Exists,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    QuerySet,
    Window,
)
from django.db.models.functions import Coalesce, RowNumber, TruncDate
from django.utils import timezone

from ml.agreement import cohens_kappa, fleiss_kappa
from ml.consensus import VERDICTS
from ml.intervals import wilson_interval
from ml.labels import EMOTIONS
from webapp.accounts.models import Role, User
from webapp.accounts.roles import has_role
from webapp.core.errors import NotAllowed, NotFound
from webapp.curation.models import (
    Claim,
    ClaimStatus,
    Consensus,
    ConsensusMethod,
    ConsensusState,
    Correction,
    GoldFace,
    Pause,
    QueueItem,
    Source,
)
from webapp.curation.services.claims import CHANGE_WINDOW
from webapp.curation.services.priority import served_probabilities
from webapp.curation.services.quality import GoldScore, gold_scores
from webapp.photos.models import Face
from webapp.photos.selectors import training_allowed

IntArray = npt.NDArray[np.int64]

DAYS_SHOWN: Final = 30
_KAPPA_FACES: Final = 5000
"""Agreement is told of the latest so many faces: enough, and soon done."""

_DURATIONS: Final = 500
"""How long a face takes is told of so many of a person's last labels."""


@dataclass(frozen=True, slots=True)
class TrainingLabel:
    """What a data set takes from curation: one decided face that may be used.

    ``label`` is one of the four emotions. ``tally`` counts the votes in
    ``ml.consensus.VERDICTS`` order, for soft labels; ``weight`` is how far the label
    can be relied on, in (0, 1].
    """

    face_id: uuid.UUID
    photo_id: uuid.UUID
    label: str
    tally: tuple[int, ...]
    weight: float
    reason: str
    sampled: bool
    decided_at: datetime


def training_labels() -> Iterator[TrainingLabel]:
    """Every face whose label may train, in the order of decision.

    Decided by people (never by a flag), one of the four emotions, with consent that
    still holds, and no gold face: who labels gold well must not teach by it.
    """
    rows = (
        Consensus.objects.filter(
            training_allowed("face__photo"),
            state=ConsensusState.DECIDED,
            verdict__in=[emotion.value for emotion in EMOTIONS],
            face__gold__isnull=True,
        )
        .order_by("decided_at", "face_id")
        .values_list(
            "face_id",
            "face__photo_id",
            "verdict",
            "tally",
            "agreement",
            "quality",
            "method",
            "face__queue_item__reason",
            "face__queue_item__sampled",
            "decided_at",
        )
    )
    for row in rows.iterator(chunk_size=2000):
        face, photo, label, tally, agreement, quality, method = row[:7]
        reason, sampled, decided_at = row[7:]
        assert decided_at is not None  # The database says so of what is decided.
        weight = quality if quality is not None else agreement
        yield TrainingLabel(
            face_id=face,
            photo_id=photo,
            label=label,
            tally=tuple(tally),
            weight=1.0 if method == "adjudicated" else max(weight, 0.05),
            reason=reason or "",
            sampled=bool(sampled),
            decided_at=decided_at,
        )


def never() -> datetime | None:
    """Where nothing is trained every label is new."""
    return None


last_run_at: Callable[[], datetime | None] = never
"""When a training last had a chance to learn from the labels. Training lies above this
room and puts its own in place as the site starts."""


def count_new_labels(*, until: datetime | None = None) -> int:
    """Labels that may train and that no run has had a chance to learn from; with
    ``until`` only those that were decided by then."""
    labels = _decided(until or timezone.now()).filter(
        training_allowed("face__photo"),
        verdict__in=[emotion.value for emotion in EMOTIONS],
        face__gold__isnull=True,
    )
    since = last_run_at()
    if since is not None:
        labels = labels.filter(decided_at__gt=since)
    return labels.count()


@dataclass(frozen=True, slots=True)
class LiveAccuracy:
    """How often the model is right on the random sample, with its 95 % interval."""

    right: int
    labelled: int

    @property
    def share(self) -> float | None:
        return self.right / self.labelled if self.labelled else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.right, self.labelled)


def live_accuracy(*, until: datetime) -> LiveAccuracy:
    """Of sampled faces that by then were decided as one of the four emotions, or gold,
    what their visitors were told. Gold faces count by what is known of them, which no
    answer moves."""
    counted = Q(
        verdict__in=[emotion.value for emotion in EMOTIONS],
        face__queue_item__sampled=True,
    )
    rows = _decided(until).filter(counted, face__gold__isnull=True)
    golds = GoldFace.objects.filter(counted, created_at__lte=until)
    decided = dict(
        [
            *rows.values_list("face_id", "verdict"),
            *golds.values_list("face_id", "verdict"),
        ]
    )
    read = served_probabilities(face_ids=list(decided))
    right = sum(
        EMOTIONS[int(np.argmax(values))].value == decided[face]
        for face, values in read.items()
    )
    return LiveAccuracy(right, len(read))


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """The queue at one moment. ``oldest_at`` is null where nothing waits;
    ``by_verdict`` counts decided faces in ``VERDICTS`` order."""

    waiting: int
    oldest_at: datetime | None
    held: int
    disputed: int
    decided: int
    by_reason: dict[str, int]
    by_verdict: dict[str, int]
    labels_per_day: list[tuple[date, int]]
    agreement: float | None
    kappa: float | None
    live: LiveAccuracy
    new_labels: int
    gold_faces: int


def queue_figures(*, person: User | None = None) -> QueueFigures:
    """Everything that the dashboard shows, as this person is told it; as it is where
    nobody is named.

    To an annotator, faces of which something came of votes within the hour wait. Gold
    faces neither wait, nor are they disputed or decided: some were so long ago, and
    where an annotator's own answer ended that, they would learn what it had been.
    """
    until, known = timezone.now(), Q()
    if person is not None and not has_role(person, Role.ADJUDICATOR):
        until, known = settled_until(), Q(face__gold__isnull=True)
    decided, disputed = _decided(until).filter(known), _disputed(until).filter(known)
    waiting = QueueItem.objects.filter(
        known,
        ~Exists(decided.filter(face=OuterRef("face"))),
        ~Exists(disputed.filter(face=OuterRef("face"))),
        training_allowed("face__photo"),
    )
    tallies = annotators_tallies(until=until)
    verdicts = dict(
        decided.order_by().values_list("verdict").annotate(count=Count("pk"))
    )
    return QueueFigures(
        waiting=waiting.count(),
        oldest_at=waiting.aggregate(at=Min("created_at"))["at"],
        held=Claim.objects.filter(
            status=ClaimStatus.HELD, expires_at__gt=timezone.now()
        ).count(),
        disputed=disputed.count(),
        decided=decided.count(),
        by_reason=dict(
            waiting.order_by()
            .values_list("reason")
            .annotate(count=Count("pk"))
            .order_by("-count")
        ),
        by_verdict={word: verdicts.get(word, 0) for word in VERDICTS},
        labels_per_day=labels_per_day(corrections=human_votes()),
        agreement=float((tallies.max(axis=1) / tallies.sum(axis=1)).mean())
        if len(tallies)
        else None,
        kappa=fleiss_kappa(tallies),
        live=live_accuracy(until=until),
        new_labels=count_new_labels(until=until),
        gold_faces=GoldFace.objects.count(),
    )


def human_votes() -> QuerySet[Correction]:
    """Current votes of annotators and adjudicators."""
    return Correction.objects.filter(
        retracted_at__isnull=True, source__in=[Source.ANNOTATOR, Source.ADJUDICATOR]
    )


def labels_per_day(*, corrections: QuerySet[Correction]) -> list[tuple[date, int]]:
    """The last thirty days, days without a label included, oldest first."""
    today = timezone.now().date()
    first = today - timedelta(days=DAYS_SHOWN - 1)
    counted = dict(
        corrections.filter(created_at__date__gte=first)
        .order_by()
        .annotate(day=TruncDate("created_at"))
        .values_list("day")
        .annotate(count=Count("pk"))
    )
    days = [first + timedelta(days=number) for number in range(DAYS_SHOWN)]
    return [(day, counted.get(day, 0)) for day in days]


def annotators_tallies(*, until: datetime) -> IntArray:
    """(N, 6): how many annotators had said what by then of the faces that were
    labelled last, in ``VERDICTS`` order, where two or more had. An adjudicator has
    seen their votes, and tells nothing of how far people agree."""
    votes = Correction.objects.filter(
        Q(retracted_at__isnull=True) | Q(retracted_at__gt=until),
        source=Source.ANNOTATOR,
        created_at__lte=until,
    ).order_by()
    faces = (
        votes.values("face")
        .annotate(given=Count("pk"), last=Max("created_at"))
        .filter(given__gte=2)
        .order_by("-last")
        .values_list("face", flat=True)[:_KAPPA_FACES]
    )
    tallies: dict[uuid.UUID, list[int]] = defaultdict(lambda: [0] * len(VERDICTS))
    for face, verdict, count in (
        votes.filter(face__in=faces)
        .values_list("face", "verdict")
        .annotate(count=Count("pk"))
    ):
        tallies[face][VERDICTS.index(verdict)] = count
    return np.array(list(tallies.values()), np.int64).reshape(-1, len(VERDICTS))


def _decided(until: datetime) -> QuerySet[Consensus]:
    """Faces that are decided, and were so by then."""
    return Consensus.objects.filter(state=ConsensusState.DECIDED, decided_at__lte=until)


def _disputed(until: datetime) -> QuerySet[Consensus]:
    """Faces that are disputed, and of which nobody has said anything since then."""
    said = Correction.objects.filter(
        Q(created_at__gt=until) | Q(retracted_at__gt=until),
        source__in=[Source.ANNOTATOR, Source.ADJUDICATOR],
        face=OuterRef("face"),
    )
    passed_over = Claim.objects.filter(ended_at__gt=until, face=OuterRef("face"))
    return disputed_faces().filter(~Exists(said), ~Exists(passed_over))


def disputed_faces() -> QuerySet[Consensus]:
    """What waits for an adjudicator, ``since`` when, the longest first."""
    return (
        Consensus.objects.filter(
            training_allowed("face__photo"),
            state=ConsensusState.DISPUTED,
        )
        # While a site is upgraded, a release that knew no such moment may write rows.
        .annotate(since=Coalesce("disputed_at", "created_at"))
        .select_related("face", "face__photo")
        .defer("face__crop")
        .order_by("since", "pk")
    )


def gold_candidates() -> QuerySet[Consensus]:
    """Decided faces on which all who voted agree with what was decided, the surest
    first: an adjudicator's word, then the number of votes."""
    # Weighing may have made something else of what all of them said.
    said = [
        Q(verdict=word, **{f"tally__{i}__gt": 0}) for i, word in enumerate(VERDICTS)
    ]
    return (
        Consensus.objects.filter(
            reduce(or_, said),
            training_allowed("face__photo"),
            state=ConsensusState.DECIDED,
            votes__gte=2,
            agreement=1.0,
            face__gold__isnull=True,
        )
        .annotate(judged=Q(method=ConsensusMethod.ADJUDICATED))
        .order_by("-judged", "-votes", "decided_at", "pk")
    )


@dataclass(frozen=True, slots=True)
class PersonFigures:
    """One annotator's work.

    ``kappa`` is Cohen's, against what was decided on the same faces;
    ``agreement_by_verdict`` the share of each verdict of theirs that was decided so,
    null where they never said it. Both, and ``gold``, count only what was said as an
    annotator and can be changed no more: nobody learns from them how others see a face,
    and then agrees.
    ``median_ms`` is how long a face took them.
    """

    person: User
    votes: int
    skips: int
    today: int
    median_ms: int | None
    gold: GoldScore
    kappa: float | None
    agreement: float | None
    agreement_by_verdict: dict[str, float | None]
    by_verdict: dict[str, int]
    pause: Pause | None


def person_figures(*, person: User) -> PersonFigures:
    return people_figures(people=[person])[0]


def people_figures(*, people: Sequence[User]) -> list[PersonFigures]:
    """Of each person, in the order given; as many queries for one as for many."""
    until = settled_until()
    votes = human_votes().filter(author__in=people).order_by()
    said: dict[int, Counter[str]] = {person.pk: Counter() for person in people}
    for author, verdict, count in votes.values_list("author", "verdict").annotate(
        count=Count("pk")
    ):
        said[author][verdict] = count
    pairs: dict[int, Counter[tuple[str, str]]] = {
        person.pk: Counter() for person in people
    }
    for author, given, decided, count in (
        votes.filter(
            # An adjudicator's word is what was decided: it would agree with itself.
            source=Source.ANNOTATOR,
            created_at__lte=until,
            face__consensus__state=ConsensusState.DECIDED,
            face__consensus__votes__gte=2,
        )
        .values_list("author", "verdict", "face__consensus__verdict")
        .annotate(count=Count("pk"))
    ):
        pairs[author][given, decided] = count
    today = dict(
        votes.filter(created_at__date=timezone.now().date())
        .values_list("author")
        .annotate(count=Count("pk"))
    )
    skips = dict(
        Claim.objects.filter(person__in=people, status=ClaimStatus.SKIPPED)
        .order_by()
        .values_list("person")
        .annotate(count=Count("pk"))
    )
    durations: dict[int, list[int]] = {person.pk: [] for person in people}
    for author, duration in (
        votes.annotate(
            place=Window(RowNumber(), partition_by="author", order_by="-created_at")
        )
        .filter(place__lte=_DURATIONS)
        .values_list("author", "duration_ms")
    ):
        if duration is not None:
            durations[author].append(duration)
    golds = gold_scores(people=people, until=until)
    pauses = {
        pause.person_id: pause
        for pause in Pause.objects.filter(person__in=people, lifted_at__isnull=True)
    }
    return [
        _figures_of(
            person,
            said=said[person.pk],
            pairs=pairs[person.pk],
            skips=skips.get(person.pk, 0),
            today=today.get(person.pk, 0),
            durations=durations[person.pk],
            gold=golds[person.pk],
            pause=pauses.get(person.pk),
        )
        for person in people
    ]


def _figures_of(
    person: User,
    *,
    said: Counter[str],
    pairs: Counter[tuple[str, str]],
    skips: int,
    today: int,
    durations: list[int],
    gold: GoldScore,
    pause: Pause | None,
) -> PersonFigures:
    given = np.array([VERDICTS.index(mine) for mine, _ in pairs.elements()], np.int64)
    decided = np.array(
        [VERDICTS.index(theirs) for _, theirs in pairs.elements()], np.int64
    )
    return PersonFigures(
        person=person,
        votes=said.total(),
        skips=skips,
        today=today,
        median_ms=int(np.median(durations)) if durations else None,
        gold=gold,
        kappa=cohens_kappa(given, decided),
        agreement=float((given == decided).mean()) if pairs else None,
        agreement_by_verdict={
            word: float((decided[given == index] == index).mean())
            if (given == index).any()
            else None
            for index, word in enumerate(VERDICTS)
        },
        by_verdict={word: said[word] for word in VERDICTS},
        pause=pause,
    )


def settled_until() -> datetime:
    """Labels given up to then can be changed no more, see ``claims.CHANGE_WINDOW``:
    their people may learn what others said."""
    return timezone.now() - CHANGE_WINDOW


def told_until(*, person: User) -> datetime:
    """Up to when a person is told what others said: to now as an adjudicator."""
    judges = has_role(person, Role.ADJUDICATOR)
    return timezone.now() if judges else settled_until()


def face_history(*, face_id: uuid.UUID) -> list[Correction]:
    """Everything that was ever said of a face, in order, taken back or not."""
    return list(
        Correction.objects.filter(face_id=face_id)
        .select_related("author")
        .order_by("created_at", "pk")
    )


def face_consensus(*, face_id: uuid.UUID) -> Consensus | None:
    return Consensus.objects.filter(face_id=face_id).first()


def recent_votes(*, person: User, count: int = 50) -> list[Correction]:
    """What a person said last, with what was decided on the same faces."""
    return list(
        human_votes()
        .filter(author=person)
        .select_related("face__consensus")
        .defer("face__crop")
        .order_by("-created_at")[:count]
    )


def get_face(*, face_id: uuid.UUID) -> Face:
    """A face with its photo; ``NotFound`` where it is gone, or no longer to be seen."""
    face = (
        Face.objects.select_related("photo")
        .filter(training_allowed("photo"), pk=face_id)
        .first()
    )
    if face is None:
        raise NotFound(
            "This face is gone: its owner took the photo back, or its time is up."
        )
    return face


def refuse_the_blind(*, person: User, face_id: uuid.UUID) -> None:
    """Whoever has not voted, or can still change that, must not know what others
    said: ``DomainError``, 403. Once they may, it is for good, while the face is to be
    seen: ``NotFound``. Adjudicators may at any time."""
    mine = human_votes().filter(
        author=person, face_id=face_id, created_at__lte=settled_until()
    )
    if not has_role(person, Role.ADJUDICATOR) and not mine.exists():
        raise NotAllowed(
            "You see what others said of a face an hour after you have labelled it "
            "yourself: when you can change your label no more.",
            code="blind",
        )
    get_face(face_id=face_id)


def labelled_today(*, person: User) -> int:
    """How many labels a person has given today."""
    return (
        human_votes()
        .filter(author=person, created_at__date=timezone.now().date())
        .count()
    )


@dataclass(frozen=True, slots=True)
class AlikeFace:
    """A face of the grid, and how like the first one it is, in [-1, 1]."""

    face_id: uuid.UUID
    likeness: float
    is_decided: bool


def alike_faces(*, seed: uuid.UUID | None, count: int = 24) -> list[AlikeFace]:
    """Undecided faces that the model finds alike, the most alike first.

    Alike in where in the face the model sees each emotion. Without ``seed`` the face
    that is due next leads; a seed leads even where it is decided.
    """
    decided = Consensus.objects.filter(state=ConsensusState.DECIDED)
    is_decided = seed is not None and decided.filter(face_id=seed).exists()
    open_faces = list(
        QueueItem.objects.filter(
            ~Q(face__consensus__state=ConsensusState.DECIDED),
            training_allowed("face__photo"),
        )
        .order_by("-priority", "created_at")
        .values_list("face_id", flat=True)[:2000]
    )
    if seed is not None and seed not in open_faces:
        open_faces.insert(0, seed)
    rows = Face.objects.filter(
        training_allowed("photo"),
        pk__in=open_faces,
        predictions__model_version=F("photo__model_version"),
    ).values_list("pk", "predictions__activation")
    maps = {pk: np.frombuffer(bytes(data), "<f2") for pk, data in rows}
    leader = seed if seed in maps else next((f for f in open_faces if f in maps), None)
    if leader is None:
        return []
    first = maps[leader]
    alike = [
        AlikeFace(face, _likeness(first, values), is_decided and face == seed)
        for face, values in maps.items()
        if values.shape == first.shape
    ]
    alike.sort(key=lambda face: (face.face_id != leader, -face.likeness))
    return alike[:count]


def _likeness(left: np.ndarray, right: np.ndarray) -> float:
    a, b = left.astype(np.float64), right.astype(np.float64)
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0
