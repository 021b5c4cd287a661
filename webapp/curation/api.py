"""Curation over the API: the same services as the pages."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers, status
from rest_framework.parsers import FormParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from webapp.accounts.access import IsAdjudicator, IsAdmin, IsAnnotator
from webapp.accounts.models import Role, User
from webapp.accounts.services import invite_person
from webapp.core.api import ErrorSerializer, JSONParser
from webapp.core.errors import NotFound
from webapp.curation import selectors
from webapp.curation.models import (
    KEYS,
    MAX_BULK,
    MAX_COMMENT_LENGTH,
    Claim,
    Consensus,
    Verdict,
)
from webapp.curation.services import claims, quality, votes
from webapp.photos.api import validated

_ERROR = OpenApiResponse(ErrorSerializer)
_REFUSALS = {400: _ERROR, 403: _ERROR, 409: _ERROR}


def person_of(request: Request) -> User:
    """Who asks; the permission classes have made sure that it is a person."""
    assert isinstance(request.user, User)
    return request.user


class ClaimSerializer(serializers.Serializer[Any]):
    """A face that is yours for ten minutes. Nothing here tells what anybody, or the
    model, has said of it."""

    id = serializers.UUIDField()
    face = serializers.SerializerMethodField(help_text="Address of the face, JPEG.")
    photo = serializers.SerializerMethodField(
        help_text="Address of its photo with the face framed, JPEG."
    )
    expires_at = serializers.DateTimeField()

    def get_face(self, claim: Claim) -> str:
        return reverse("curation:face", args=[claim.pk])

    def get_photo(self, claim: Claim) -> str:
        return reverse("curation:photo", args=[claim.pk])


class CountSerializer(serializers.Serializer[Any]):
    count = serializers.IntegerField(
        min_value=1,
        max_value=claims.MAX_HELD,
        default=1,
        help_text="How many faces to have before you in all.",
    )


class LeaseSerializer(serializers.Serializer[Any]):
    seconds = serializers.IntegerField(
        min_value=1,
        max_value=int(claims.LEASE.total_seconds()),
        default=int(claims.LEASE.total_seconds()),
        help_text="How long they are yours from now on.",
    )


class ClaimsSerializer(serializers.Serializer[Any]):
    claims = ClaimSerializer(many=True)


class VoteSerializer(serializers.Serializer[Any]):
    verdict = serializers.ChoiceField(choices=Verdict.choices)
    duration_ms = serializers.IntegerField(
        required=False, min_value=0, help_text="From seeing the face to the key."
    )
    key = serializers.ChoiceField(
        choices=list(KEYS.values()),
        required=False,
        allow_blank=True,
        help_text="Which key of the desk was pressed, if any.",
    )
    comment = serializers.CharField(
        required=False, allow_blank=True, max_length=MAX_COMMENT_LENGTH
    )


class VerdictSerializer(serializers.Serializer[Any]):
    verdict = serializers.ChoiceField(choices=Verdict.choices)
    comment = serializers.CharField(
        required=False, allow_blank=True, max_length=MAX_COMMENT_LENGTH
    )


class VotedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField(help_text="The Correction.")
    today = serializers.IntegerField(help_text="How many labels you gave today.")


class HeldSerializer(serializers.Serializer[Any]):
    held = serializers.IntegerField(
        help_text="How many faces that concerned: renewed, given back or taken back."
    )


class ClaimsView(APIView):
    """The faces before you."""

    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="take_faces",
        summary="Take faces from the queue",
        description=(
            "Fills up what you hold to `count` and renews it: asking again gives the "
            "same faces. An empty list: nothing waits for you."
        ),
        request=CountSerializer,
        responses={200: ClaimsSerializer, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        fields = validated(CountSerializer(data=request.data), "bad_count")
        held = claims.claim_faces(person=person_of(request), count=fields["count"])
        return _private({"claims": ClaimSerializer(held, many=True).data})

    @extend_schema(
        operation_id="give_faces_back",
        summary="Give all faces back",
        responses={200: HeldSerializer, 403: _ERROR},
    )
    def delete(self, request: Request) -> Response:
        return _private({"held": claims.give_back_claims(person=person_of(request))})


class RenewView(APIView):
    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="renew_faces",
        summary="Ten more minutes for what you hold",
        request=LeaseSerializer,
        responses={200: HeldSerializer, 400: _ERROR, 403: _ERROR},
    )
    def post(self, request: Request) -> Response:
        fields = validated(LeaseSerializer(data=request.data), "bad_lease")
        lease = timedelta(seconds=fields["seconds"])
        held = claims.renew_claims(person=person_of(request), lease=lease)
        return _private({"held": held})


class VoteView(APIView):
    """Your word on a face that you hold."""

    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="label_face",
        summary="Label a face",
        description=(
            "The same again changes nothing; another verdict or comment is refused."
        ),
        request=VoteSerializer,
        responses={201: VotedSerializer, 404: _ERROR, **_REFUSALS},
    )
    def post(self, request: Request, claim_id: uuid.UUID) -> Response:
        fields = validated(VoteSerializer(data=request.data), "bad_verdict")
        correction = votes.submit_correction(
            person=person_of(request), claim_id=claim_id, **fields
        )
        return _voted(request, correction.pk, status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="relabel_face",
        summary="Change a label",
        description=(
            "For an hour. The comment goes with the verdict: send it again to keep it."
        ),
        request=VerdictSerializer,
        responses={200: VotedSerializer, 404: _ERROR, **_REFUSALS},
    )
    def put(self, request: Request, claim_id: uuid.UUID) -> Response:
        fields = validated(VerdictSerializer(data=request.data), "bad_verdict")
        correction = votes.revise_correction(
            person=person_of(request), claim_id=claim_id, **fields
        )
        return _voted(request, correction.pk, status.HTTP_200_OK)


class SkipView(APIView):
    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="skip_face",
        summary="Pass a face over",
        request=None,
        responses={204: None, 403: _ERROR, 404: _ERROR, 409: _ERROR},
    )
    def post(self, request: Request, claim_id: uuid.UUID) -> Response:
        votes.skip_face(person=person_of(request), claim_id=claim_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class UndoSerializer(serializers.Serializer[Any]):
    claim = serializers.UUIDField(
        required=False,
        help_text="The face to take back, instead of the last one. The same again "
        "changes nothing.",
    )


class UndoView(APIView):
    permission_classes = [IsAnnotator]
    # Without a claim there is nothing to say, in whatever format.
    parser_classes = [JSONParser, FormParser, MultiPartParser]

    @extend_schema(
        operation_id="undo_label",
        summary="Take your last label or skip back",
        description=("For an hour, up to twenty steps; the face is before you again."),
        request=UndoSerializer,
        responses={200: ClaimSerializer, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        fields = validated(UndoSerializer(data=request.data), "bad_claim")
        claim = votes.undo(person=person_of(request), claim_id=fields.get("claim"))
        return _private(ClaimSerializer(claim).data)


class FiguresSerializer(serializers.Serializer[selectors.QueueFigures]):
    waiting = serializers.IntegerField()
    oldest_at = serializers.DateTimeField(allow_null=True)
    held = serializers.IntegerField()
    disputed = serializers.IntegerField()
    decided = serializers.IntegerField()
    by_reason = serializers.DictField(child=serializers.IntegerField())
    by_verdict = serializers.DictField(child=serializers.IntegerField())
    agreement = serializers.FloatField(allow_null=True)
    kappa = serializers.FloatField(allow_null=True, help_text="Fleiss' kappa.")
    new_labels = serializers.IntegerField(
        help_text="Labels that no run has had a chance to learn from."
    )


class QueueView(APIView):
    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="get_queue",
        summary="The queue in figures",
        description=(
            "To annotators, what came of votes counts an hour later, when nobody can "
            "change theirs any more; until then the face waits. Gold faces count as "
            "neither waiting, disputed nor decided."
        ),
        responses={200: FiguresSerializer, 403: _ERROR},
    )
    def get(self, request: Request) -> Response:
        figures = selectors.queue_figures(person=person_of(request))
        return _private(FiguresSerializer(figures).data)


class PersonSerializer(serializers.Serializer[Any]):
    person = serializers.CharField(source="person.username")
    votes = serializers.IntegerField()
    skips = serializers.IntegerField()
    today = serializers.IntegerField()
    median_ms = serializers.IntegerField(allow_null=True)
    gold_answers = serializers.IntegerField(source="gold.answers")
    gold_accuracy = serializers.FloatField(source="gold.accuracy", allow_null=True)
    kappa = serializers.FloatField(
        allow_null=True,
        help_text="Cohen's, against what was decided. As gold and agreement it counts "
        "a label an hour after it was given.",
    )
    agreement = serializers.FloatField(allow_null=True)
    by_verdict = serializers.DictField(child=serializers.IntegerField())
    paused = serializers.SerializerMethodField()

    def get_paused(self, figures: selectors.PersonFigures) -> bool:
        return figures.pause is not None


class MeView(APIView):
    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="get_my_figures",
        summary="Your own figures",
        responses={200: PersonSerializer, 403: _ERROR},
    )
    def get(self, request: Request) -> Response:
        figures = selectors.person_figures(person=person_of(request))
        return _private(PersonSerializer(figures).data)


class PeopleView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="list_people",
        summary="Everybody's figures",
        responses={200: PersonSerializer(many=True), 403: _ERROR},
    )
    def get(self, request: Request) -> Response:
        everybody = list(User.objects.order_by("username"))
        figures = selectors.people_figures(people=everybody)
        return _private(PersonSerializer(figures, many=True).data)


class PauseView(APIView):
    permission_classes = [IsAdmin]

    @extend_schema(
        operation_id="lift_pause",
        summary="Let somebody label again",
        responses={204: None, 403: _ERROR, 404: _ERROR},
    )
    def delete(self, request: Request, username: str) -> Response:
        person = User.objects.filter(username=username).first()
        if person is None:
            raise NotFound("There is nobody of that name.")
        quality.lift_pause(person=person, lifted_by=person_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class CorrectionSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    at = serializers.DateTimeField(source="created_at")
    by = serializers.SerializerMethodField()
    role = serializers.CharField(
        source="source", help_text="visitor, annotator, adjudicator or import."
    )
    verdict = serializers.CharField()
    duration_ms = serializers.IntegerField(allow_null=True)
    key = serializers.CharField()
    comment = serializers.CharField()
    retracted_at = serializers.DateTimeField(allow_null=True)

    def get_by(self, correction: Any) -> str:
        return correction.author.username if correction.author else "visitor"


class HistoryView(APIView):
    permission_classes = [IsAnnotator]

    @extend_schema(
        operation_id="get_history",
        summary="Everything that was said of a face",
        description=(
            "To annotators only of faces that they have labelled themselves, an hour "
            "later: when they can change and undo that label no more."
        ),
        responses={200: CorrectionSerializer(many=True), 403: _ERROR, 404: _ERROR},
    )
    def get(self, request: Request, face_id: uuid.UUID) -> Response:
        selectors.refuse_the_blind(person=person_of(request), face_id=face_id)
        history = selectors.face_history(face_id=face_id)
        return _private(CorrectionSerializer(history, many=True).data)


class DisputeSerializer(serializers.Serializer[Any]):
    face_id = serializers.UUIDField()
    tally = serializers.SerializerMethodField(help_text="Votes for each verdict.")
    agreement = serializers.FloatField()
    since = serializers.DateTimeField(help_text="When it came to be disputed.")

    def get_tally(self, consensus: Consensus) -> dict[str, int]:
        return dict(zip(Verdict.values, consensus.tally, strict=False))


class DisputesView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="list_disputes",
        summary="Faces on which people disagree, the longest disputed first",
        responses={200: DisputeSerializer(many=True), 403: _ERROR},
    )
    def get(self, request: Request) -> Response:
        disputes = selectors.disputed_faces()[:100]
        return _private(DisputeSerializer(disputes, many=True).data)


class JudgeView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="decide_face",
        summary="Decide a face",
        request=VerdictSerializer,
        responses={201: VotedSerializer, 404: _ERROR, **_REFUSALS},
    )
    def post(self, request: Request, face_id: uuid.UUID) -> Response:
        fields = validated(VerdictSerializer(data=request.data), "bad_verdict")
        correction = votes.adjudicate(
            person=person_of(request), face_id=face_id, **fields
        )
        return _voted(request, correction.pk, status.HTTP_201_CREATED)

    @extend_schema(
        operation_id="undecide_face",
        summary="Take your decision back",
        responses={204: None, 404: _ERROR, **_REFUSALS},
    )
    def delete(self, request: Request, face_id: uuid.UUID) -> Response:
        votes.retract_adjudication(person=person_of(request), face_id=face_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class BulkSerializer(serializers.Serializer[Any]):
    faces = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=MAX_BULK
    )
    verdict = serializers.ChoiceField(choices=Verdict.choices)


class BatchSerializer(serializers.Serializer[Any]):
    batch = serializers.UUIDField(help_text="Takes the labels back again.")


class BulkView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="label_many",
        summary="Label many faces in one go",
        request=BulkSerializer,
        responses={201: BatchSerializer, 404: _ERROR, **_REFUSALS},
    )
    def post(self, request: Request) -> Response:
        fields = validated(BulkSerializer(data=request.data), "bad_bulk")
        batch = votes.adjudicate_many(
            person=person_of(request),
            face_ids=fields["faces"],
            verdict=fields["verdict"],
        )
        return Response({"batch": batch}, status=status.HTTP_201_CREATED)


class BatchView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="unlabel_many",
        summary="Take back what was labelled in one go",
        responses={200: HeldSerializer, 404: _ERROR, **_REFUSALS},
    )
    def delete(self, request: Request, batch: uuid.UUID) -> Response:
        return _private(
            {"held": votes.undo_batch(person=person_of(request), batch=batch)}
        )


class GoldView(APIView):
    permission_classes = [IsAdjudicator]

    @extend_schema(
        operation_id="choose_gold",
        summary="Let a decided face measure people",
        request=None,
        responses={204: None, **_REFUSALS},
    )
    def put(self, request: Request, face_id: uuid.UUID) -> Response:
        quality.choose_gold(face_id=face_id, chosen_by=person_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="drop_gold",
        summary="Let it measure nobody any more",
        responses={204: None, 403: _ERROR, 404: _ERROR},
    )
    def delete(self, request: Request, face_id: uuid.UUID) -> Response:
        quality.drop_gold(face_id=face_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class InvitationSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Role.choices)
    note = serializers.CharField(required=False, allow_blank=True, max_length=120)


class InvitedSerializer(serializers.Serializer[Any]):
    link = serializers.URLField(help_text="Works once, for a week. It is not kept.")
    expires_at = serializers.DateTimeField()


class InvitationsView(APIView):
    permission_classes = [IsAdmin]

    @extend_schema(
        operation_id="invite_person",
        summary="Invite somebody",
        request=InvitationSerializer,
        responses={201: InvitedSerializer, 400: _ERROR, 403: _ERROR},
    )
    def post(self, request: Request) -> Response:
        fields = validated(InvitationSerializer(data=request.data), "bad_role")
        invitation, secret = invite_person(
            role=Role(fields["role"]),
            note=fields.get("note", ""),
            invited_by=person_of(request),
        )
        path = reverse("accounts:invitation", args=[secret])
        return Response(
            {
                "link": request.build_absolute_uri(path),
                "expires_at": invitation.expires_at,
            },
            status=status.HTTP_201_CREATED,
            headers={"Cache-Control": "no-store"},
        )


def _voted(request: Request, correction_id: uuid.UUID, code: int) -> Response:
    today = selectors.labelled_today(person=person_of(request))
    return Response({"id": correction_id, "today": today}, status=code)


def _private(data: Any) -> Response:
    return Response(data, headers={"Cache-Control": "private, no-store"})
