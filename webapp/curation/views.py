"""The pages of curation: form, service, render."""

from __future__ import annotations

import tempfile
import uuid
from typing import Any, Final

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import (
    require_http_methods,
    require_POST,
    require_safe,
)

from webapp.accounts import audit
from webapp.accounts.access import role_required
from webapp.accounts.api_keys import api_keys_of, revoke_keys_of
from webapp.accounts.models import Invitation, Role, User
from webapp.accounts.roles import has_role
from webapp.accounts.services import (
    change_person,
    invite_person,
    open_invitations,
    withdraw_invitation,
)
from webapp.core.errors import DomainError, NotFound
from webapp.core.responses import see_other
from webapp.curation import pictures, selectors
from webapp.curation.charts import count_rows, day_plot, share_rows
from webapp.curation.errors import Paused
from webapp.curation.models import (
    KEYS,
    ConsensusMethod,
    Correction,
    DatasetImport,
    GoldFace,
    Reason,
)
from webapp.curation.receipts import VERDICT_WORDS
from webapp.curation.services import claims, quality, transfer, votes

REASON_WORDS: Final[dict[str, str]] = {
    Reason.FLAG: "A visitor said it is wrong",
    Reason.UNSURE: "The model is not sure",
    Reason.DIFFER: "Two versions differ",
    Reason.SAMPLE: "Random sample",
    Reason.SUSPECT: "Suspect in a data folder",
    Reason.MANUAL: "Brought by an admin",
}

METHOD_WORDS: Final[dict[str, str]] = {
    ConsensusMethod.MAJORITY: "most votes",
    ConsensusMethod.WEIGHTED: "votes, weighed by how often each person is right",
    ConsensusMethod.ADJUDICATED: "an adjudicator",
}

GOLDS_SHOWN: Final = 24
_PEOPLE_PER_PAGE: Final = 25

VERDICTS: Final = [
    {
        "code": verdict,
        "word": VERDICT_WORDS[verdict],
        "key": key,
        "icon": {"unclear": "not-sure", "not_a_face": "picture"}.get(verdict, verdict),
    }
    for verdict, key in KEYS.items()
]
"""The six answers with their keys, in the one order."""


@never_cache
@require_safe
@role_required(Role.ANNOTATOR)
def dashboard(request: HttpRequest) -> HttpResponse:
    figures = selectors.queue_figures(person=_person(request))
    missing = max(settings.RETRAIN_AFTER_LABELS - figures.new_labels, 0)
    context = {
        "figures": figures,
        "days": day_plot(figures.labels_per_day),
        "verdict_rows": count_rows(figures.by_verdict, VERDICT_WORDS),
        "reason_rows": count_rows(figures.by_reason, REASON_WORDS),
        "missing": missing,
        "retrain_after": settings.RETRAIN_AFTER_LABELS,
        "new_percent": round(
            100 * min(figures.new_labels / settings.RETRAIN_AFTER_LABELS, 1), 1
        ),
        "live_words": _live_words(figures.live),
        "imports": DatasetImport.objects.all()[:5],
        "tab": "dashboard",
    }
    return _page(request, "dashboard", context)


@never_cache
@require_safe
@role_required(Role.ANNOTATOR)
def desk(request: HttpRequest) -> HttpResponse:
    if request.method == "HEAD":
        # Nobody looks at it, so no face is taken.
        return HttpResponse()
    person = _person(request)
    context: dict[str, Any] = {
        "verdicts": VERDICTS,
        "today": selectors.labelled_today(person=person),
        "tab": "desk",
    }
    try:
        held = claims.claim_faces(person=person)
    except Paused as pause:
        return _page(request, "desk", {**context, "pause": str(pause)}, status=403)
    return _page(request, "desk", {**context, "claim": held[0] if held else None})


@require_POST
@role_required(Role.ANNOTATOR)
def vote(request: HttpRequest, claim_id: uuid.UUID) -> HttpResponse:
    """The desk without scripts: a label, or a skip."""
    person, word = _person(request), request.POST.get("verdict", "")
    try:
        if word == "skip":
            votes.skip_face(person=person, claim_id=claim_id)
        else:
            votes.submit_correction(person=person, claim_id=claim_id, verdict=word)
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("curation:desk")


@require_POST
@role_required(Role.ANNOTATOR)
def undo(request: HttpRequest) -> HttpResponse:
    try:
        votes.undo(person=_person(request))
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("curation:desk")


@require_POST
@role_required(Role.ANNOTATOR)
def stop(request: HttpRequest) -> HttpResponse:
    """Give the faces back and leave."""
    claims.give_back_claims(person=_person(request))
    return see_other("curation:me")


@require_safe
@role_required(Role.ANNOTATOR)
def face(request: HttpRequest, claim_id: uuid.UUID) -> HttpResponseBase:
    claim = claims.get_visible_claim(person=_person(request), claim_id=claim_id)
    return _picture(pictures.face_picture(claim.face))


@require_safe
@role_required(Role.ANNOTATOR)
def photo(request: HttpRequest, claim_id: uuid.UUID) -> HttpResponseBase:
    claim = claims.get_visible_claim(person=_person(request), claim_id=claim_id)
    return _picture(pictures.photo_picture(claim.face))


@never_cache
@require_safe
@role_required(Role.ADJUDICATOR)
def disputes(request: HttpRequest) -> HttpResponse:
    waiting = selectors.disputed_faces()
    first = waiting.first()
    context = {
        "count": waiting.count(),
        "face_id": first.face_id if first else None,
        "rows": selectors.face_history(face_id=first.face_id) if first else [],
        "verdicts": VERDICTS,
        "tab": "disputes",
    }
    return _page(request, "disputes", context)


@never_cache
@require_safe
@role_required(Role.ANNOTATOR)
def history(request: HttpRequest, face_id: uuid.UUID) -> HttpResponse:
    selectors.refuse_the_blind(person=_person(request), face_id=face_id)
    consensus = selectors.face_consensus(face_id=face_id)
    context = {
        "face": selectors.get_face(face_id=face_id),
        "rows": selectors.face_history(face_id=face_id),
        "consensus": consensus,
        "decided_by": METHOD_WORDS.get(consensus.method) if consensus else None,
        "is_gold": GoldFace.objects.filter(face_id=face_id).exists(),
        "verdicts": VERDICTS,
    }
    return _page(request, "history", context)


@require_safe
@role_required(Role.ANNOTATOR)
def judged_face(request: HttpRequest, face_id: uuid.UUID) -> HttpResponseBase:
    selectors.refuse_the_blind(person=_person(request), face_id=face_id)
    return _picture(pictures.face_picture(selectors.get_face(face_id=face_id)))


@require_safe
@role_required(Role.ADJUDICATOR)
def judged_photo(request: HttpRequest, face_id: uuid.UUID) -> HttpResponseBase:
    return _picture(pictures.photo_picture(selectors.get_face(face_id=face_id)))


@require_POST
@role_required(Role.ADJUDICATOR)
def judge(request: HttpRequest, face_id: uuid.UUID) -> HttpResponse:
    """Decide a face, or take that back. Whoever decides from the page of disputes
    (``disputed=1``) overrules nobody, and comes back to it."""
    disputed = request.POST.get("disputed") == "1"
    try:
        if request.POST.get("verdict") == "retract":
            votes.retract_adjudication(person=_person(request), face_id=face_id)
            messages.success(request, "Taken back: the votes count again.")
        else:
            votes.adjudicate(
                person=_person(request),
                face_id=face_id,
                verdict=request.POST.get("verdict", ""),
                comment=request.POST.get("comment", ""),
                while_disputed=disputed,
            )
            messages.success(request, "Decided.")
    except DomainError as error:
        messages.error(request, str(error))
    if disputed:
        return see_other("curation:disputes")
    return see_other("curation:history", face_id)


@require_POST
@role_required(Role.ADJUDICATOR)
def gold(request: HttpRequest, face_id: uuid.UUID) -> HttpResponse:
    """Make a face gold (``gold=1``), or no longer (``gold=0``)."""
    try:
        match request.POST.get("gold"):
            case "1":
                quality.choose_gold(face_id=face_id, chosen_by=_person(request))
            case "0":
                quality.drop_gold(face_id=face_id)
            case _:
                raise DomainError(
                    "Say whether the face is to be gold: 1 or 0.", code="bad_gold"
                )
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("curation:history", face_id)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@role_required(Role.ADJUDICATOR)
def alike(request: HttpRequest) -> HttpResponse:
    """The grid: see, select, label; the label of many can be taken back at once.
    It overrules nobody."""
    if request.method == "POST":
        try:
            chosen = {uuid.UUID(value) for value in request.POST.getlist("face")}
            batch = votes.adjudicate_many(
                person=_person(request),
                face_ids=list(chosen),
                verdict=request.POST.get("verdict", ""),
                while_undecided=True,
            )
        except ValueError:
            messages.error(request, "Select faces of this page.")
            return see_other("curation:alike")
        except DomainError as error:
            messages.error(request, str(error))
            return see_other("curation:alike")
        labelled = Correction.objects.filter(batch=batch, face_id__in=chosen).count()
        if left_out := len(chosen) - labelled:
            which = "1 face was" if left_out == 1 else f"{left_out} faces were"
            messages.error(
                request,
                f"{which} left out: decided meanwhile. The page of a face's history "
                "overrules.",
            )
        return see_other("curation:alike", query={"done": batch})
    context = {
        "faces": selectors.alike_faces(seed=_uuid(request.GET.get("seed"))),
        "done": _uuid(request.GET.get("done")),
        "verdicts": VERDICTS,
        "tab": "alike",
    }
    return _page(request, "alike", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@role_required(Role.ADJUDICATOR)
def golds(request: HttpRequest) -> HttpResponse:
    """Decided faces that may be gold: see, select, make them gold."""
    if request.method == "POST":
        try:
            chosen = [uuid.UUID(value) for value in request.POST.getlist("face")]
            quality.choose_many_gold(face_ids=chosen, chosen_by=_person(request))
            messages.success(request, f"{len(chosen)} more gold.")
        except ValueError:
            messages.error(request, "Select faces of this page.")
        except DomainError as error:
            messages.error(request, str(error))
        return see_other("curation:golds")
    candidates = selectors.gold_candidates()
    gold_count = GoldFace.objects.count()
    context = {
        "faces": candidates[:GOLDS_SHOWN],
        "count": candidates.count(),
        "gold_count": gold_count,
        "lasts_for": gold_count * quality.LABELS_PER_GOLD,
        "tab": "golds",
    }
    return _page(request, "golds", context)


@require_POST
@role_required(Role.ADJUDICATOR)
def undo_alike(request: HttpRequest, batch: uuid.UUID) -> HttpResponse:
    try:
        count = votes.undo_batch(person=_person(request), batch=batch)
        what = "1 label" if count == 1 else f"{count} labels"
        messages.success(request, f"{what} taken back.")
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("curation:alike")


@never_cache
@require_safe
@role_required(Role.ADJUDICATOR)
def people(request: HttpRequest) -> HttpResponse:
    everybody = User.objects.order_by("-is_active", "username")
    page = Paginator(everybody, _PEOPLE_PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "figures": selectors.people_figures(people=list(page.object_list)),
        "invitations": open_invitations().select_related("invited_by"),
        "roles": Role.values,
        "is_admin": has_role(request.user, Role.ADMIN),
        "tab": "people",
    }
    return _page(request, "people", context)


@never_cache
@require_safe
@role_required(Role.ADJUDICATOR)
def person(request: HttpRequest, username: str) -> HttpResponse:
    return _person_page(request, _named(username))


@never_cache
@require_safe
@role_required(Role.ANNOTATOR)
def me(request: HttpRequest) -> HttpResponse:
    """One's own figures: everybody sees what is measured of them."""
    return _person_page(request, _person(request))


@require_POST
@role_required(Role.ADMIN)
def change(request: HttpRequest, username: str) -> HttpResponse:
    """Give a role, close or open an account, revoke its API keys, lift a pause."""
    subject, admin = _named(username), _person(request)
    try:
        action = request.POST.get("action", "")
        if action == "lift":
            quality.lift_pause(person=subject, lifted_by=admin)
        elif action in ("close", "open"):
            change_person(person=subject, changed_by=admin, is_active=action == "open")
            claims.give_back_claims(person=subject)
        elif action == "revoke-keys":
            revoke_keys_of(person=subject, revoked_by=admin)
        elif action in Role.values:
            change_person(person=subject, changed_by=admin, role=Role(action))
        else:
            raise DomainError("Choose what to change.", code="bad_action")
        messages.success(request, f"Changed: {subject.username}.")
    except DomainError as error:
        messages.error(request, str(error))
    return see_other("curation:person", username)


@require_safe
@role_required(Role.ADJUDICATOR)
def export(request: HttpRequest, kind: str) -> HttpResponseBase:
    """Every correction of faces that may be used, as a file that comes in again."""
    today = timezone.now().date().isoformat()
    audit.record(actor=_person(request), action="exported labels", subject=kind)
    response: StreamingHttpResponse
    if kind == "zip":
        # It has no name and is gone with this process. FileResponse closes it.
        archive = tempfile.TemporaryFile()  # noqa: SIM115
        transfer.export_zip(target=archive)
        archive.seek(0)
        response = FileResponse(
            archive, as_attachment=True, filename=f"mien-labels-{today}.zip"
        )
    else:
        write = transfer.export_csv if kind == "csv" else transfer.export_jsonl
        content = {"csv": "text/csv", "jsonl": "application/jsonl"}[kind]
        response = StreamingHttpResponse(
            write(), content_type=f"{content}; charset=utf-8"
        )
        response["Content-Disposition"] = (
            f'attachment; filename="mien-labels-{today}.{kind}"'
        )
    response["Cache-Control"] = "private, no-store"
    return response


@require_POST
@role_required(Role.ADMIN)
def invite(request: HttpRequest) -> HttpResponse:
    """Make an invitation; its link is shown this once."""
    role = request.POST.get("role", "")
    if role not in Role.values:
        raise DomainError("Choose a role for the invitation.", code="bad_role")
    made, secret = invite_person(
        role=Role(role),
        note=request.POST.get("note", "").strip()[:120],
        invited_by=_person(request),
    )
    link = request.build_absolute_uri(reverse("accounts:invitation", args=[secret]))
    response = _page(
        request, "invited", {"invitation": made, "link": link, "tab": "people"}
    )
    response["Cache-Control"] = "no-store"
    return response


@require_POST
@role_required(Role.ADMIN)
def withdraw(request: HttpRequest, invitation_id: uuid.UUID) -> HttpResponse:
    withdraw_invitation(
        invitation=get_object_or_404(Invitation, pk=invitation_id),
        withdrawn_by=_person(request),
    )
    messages.success(request, "The invitation is void.")
    return see_other("curation:people")


def _live_words(live: selectors.LiveAccuracy) -> str:
    low, high = live.interval
    return (
        f"{100 * (live.share or 0):.0f} % (95 %: {100 * low:.0f} to {100 * high:.0f}, "
        f"{live.labelled} faces)"
    )


def _person_page(request: HttpRequest, subject: User) -> HttpResponse:
    figures = selectors.person_figures(person=subject)
    said = selectors.human_votes().filter(author=subject)
    context = {
        "figures": figures,
        "days": day_plot(selectors.labels_per_day(corrections=said)),
        "verdict_rows": count_rows(figures.by_verdict, VERDICT_WORDS),
        "agreement_rows": share_rows(figures.agreement_by_verdict, VERDICT_WORDS),
        "recent": selectors.recent_votes(person=subject),
        "settled_until": selectors.told_until(person=_person(request)),
        "is_me": subject == request.user,
        "roles": Role.values,
        "keys": api_keys_of(person=subject).count(),
        "is_admin": has_role(request.user, Role.ADMIN),
        "tab": "me" if subject == request.user else "people",
    }
    return _page(request, "person", context)


def _page(
    request: HttpRequest, name: str, context: dict[str, Any], status: int = 200
) -> HttpResponse:
    judges = has_role(request.user, Role.ADJUDICATOR)
    return render(
        request,
        f"curation/{name}.html",
        {**context, "is_judge": judges},
        status=status,
    )


def _picture(data: bytes) -> HttpResponse:
    response = HttpResponse(data, content_type="image/jpeg")
    # The desk holds the next ones in the page itself: nobody finds them after a
    # log-out.
    response["Cache-Control"] = "private, no-store"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return response


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _named(username: str) -> User:
    subject = User.objects.filter(username=username).first()
    if subject is None:
        raise NotFound("There is nobody of that name.")
    return subject


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError:
        return None
