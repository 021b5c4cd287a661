"""Who may do what: every address and method, asked by everybody.

``TABLE`` below is the whole of it, one line an address and method, one column an
asker. The addresses come from the URL resolver: one without a line fails the suite.

To add one: write the lines into ``TABLE`` (a status, or ``login`` for a redirect to
the log-in page), then what the address needs to ``World``: its parameters to
``parameters``, and what a well-meaning asker sends to ``body``. Run

    pytest tests/test_authorisation.py -k <name>

which says what each asker got. A method without a line must be refused to everybody.
"""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from PIL import Image

from tests.models import write_tiny_model
from tests.pictures import encode
from webapp.accounts.api_keys import create_api_key
from webapp.accounts.models import ApiKey, Invitation, Role, User
from webapp.accounts.services import invite_person
from webapp.accounts.visitors import COOKIE_NAME, Visitor, new_visitor
from webapp.curation.models import Claim, Correction
from webapp.curation.receipts import receipt_secret
from webapp.curation.services.claims import claim_faces
from webapp.curation.services.flags import submit_flag
from webapp.curation.services.votes import adjudicate_many, submit_correction
from webapp.curation.tests.factories import (
    FaceFactory,
    PersonFactory,
    QueuedFaceFactory,
    ReadPhotoFactory,
)
from webapp.photos.access import photo_secret
from webapp.photos.models import Batch, Face, Photo, ShareLink
from webapp.photos.services.sharing import create_share_link
from webapp.photos.tests.factories import stored_astronaut
from webapp.registry.models import ModelVersion, Promotion
from webapp.registry.selectors import get_champion
from webapp.registry.services import promote_model_version, register_model_version
from webapp.training.models import Shadow, TrainingRun
from webapp.training.tests.judged import judged_run

pytestmark = pytest.mark.django_db

ACTORS = (
    "anon",  # no cookie, no account
    "owner",  # the browser that gave the photo
    "other",  # another browser, with photos of its own
    "key",  # a program with an API key of its own
    "holder",  # an annotator, who holds the claim and owns the API key
    "peer",  # another annotator
    "judge",  # an adjudicator
    "admin",
)

TABLE = """
# route                  method anon  owner other key   holder peer  judge admin
livez                    GET    200   200   200   200   200    200   200   200
operations:readyz        GET    200   200   200   200   200    200   200   200
operations:metrics       GET    404   404   404   404   404    404   404   404
operations:status        GET    login login login login 403    403   403   200

# route                  method anon  owner other key   holder peer  judge admin
photos:annotated         GET    404   200   404   404   404    404   404   404
photos:batch             GET    404   200   404   404   404    404   404   404
photos:batch-csv         GET    404   200   404   404   404    404   404   404
photos:batch-delete      POST   404   303   404   404   404    404   404   404
photos:camera            GET    200   200   200   200   200    200   200   200
photos:consent           POST   404   303   404   404   404    404   404   404
photos:delete            POST   404   303   404   404   404    404   404   404
photos:delete-all        POST   303   303   303   303   303    303   303   303
photos:export-csv        GET    404   200   404   404   404    404   404   404
photos:export-json       GET    404   200   404   404   404    404   404   404
photos:heat              GET    404   200   404   404   404    404   404   404
photos:home              GET    200   200   200   200   200    200   200   200
photos:image             GET    404   200   404   404   404    404   404   404
photos:mine              GET    200   200   200   200   200    200   200   200
photos:result            GET    404   200   404   404   404    404   404   404
photos:share             POST   404   303   404   404   404    404   404   404
photos:shared            GET    200   200   200   200   200    200   200   200
photos:shared-heat       GET    200   200   200   200   200    200   200   200
photos:shared-image      GET    200   200   200   200   200    200   200   200
photos:thumbnail         GET    404   200   404   404   404    404   404   404
photos:try-example       POST   303   303   303   303   303    303   303   303
photos:unshare           POST   404   303   404   404   404    404   404   404
photos:upload            POST   303   303   303   303   303    303   303   303

# route                  method anon  owner other key   holder peer  judge admin
flags:flag               POST   404   303   404   404   404    404   404   404
flags:receipt            GET    200   200   200   200   200    200   200   200
flags:take-back          POST   303   303   303   303   303    303   303   303

# route                  method anon  owner other key   holder peer  judge admin
curation:alike           GET    login login login login 403    403   200   200
curation:alike           POST   login login login login 403    403   303   303
curation:change-person   POST   login login login login 403    403   403   303
curation:dashboard       GET    login login login login 200    200   200   200
curation:desk            GET    login login login login 200    200   200   200
curation:disputes        GET    login login login login 403    403   200   200
curation:export          GET    login login login login 403    403   200   200
curation:face            GET    login login login login 200    404   404   404
curation:gold            POST   login login login login 403    403   303   303
curation:golds           GET    login login login login 403    403   200   200
curation:golds           POST   login login login login 403    403   303   303
curation:history         GET    login login login login 403    403   200   200
curation:invite          POST   login login login login 403    403   403   200
curation:judge           POST   login login login login 403    403   303   303
curation:judged-face     GET    login login login login 403    403   200   200
curation:judged-photo    GET    login login login login 403    403   200   200
curation:me              GET    login login login login 200    200   200   200
curation:people          GET    login login login login 403    403   200   200
curation:person          GET    login login login login 403    403   200   200
curation:photo           GET    login login login login 200    404   404   404
curation:stop            POST   login login login login 303    303   303   303
curation:undo            POST   login login login login 303    303   303   303
curation:undo-alike      POST   login login login login 403    403   303   303
curation:vote            POST   login login login login 303    303   303   303
curation:withdraw        POST   login login login login 403    403   403   303

# route                  method anon  owner other key   holder peer  judge admin
training:cancel          POST   login login login login 403    403   403   303
training:card            GET    login login login login 403    403   403   200
training:compare         GET    login login login login 403    403   403   200
training:gate            GET    login login login login 403    403   403   200
training:manifest        GET    login login login login 403    403   403   200
training:model-file      GET    login login login login 403    403   403   200
training:promote         GET    login login login login 403    403   403   200
training:promote         POST   login login login login 403    403   403   303
training:retrain-without POST   login login login login 403    403   403   303
training:rollback        GET    login login login login 403    403   403   200
training:rollback        POST   login login login login 403    403   403   409
training:run             GET    login login login login 403    403   403   200
training:runs            GET    login login login login 403    403   403   200
training:schedule        GET    login login login login 403    403   403   200
training:schedule        POST   login login login login 403    403   403   303
training:snapshot        GET    login login login login 403    403   403   200
training:snapshot-manifest GET    login login login login 403    403   403   200
training:snapshots       GET    login login login login 403    403   403   200
training:start           POST   login login login login 403    403   403   303
training:start-shadow    POST   login login login login 403    403   403   303
training:stop-shadow     POST   login login login login 403    403   403   303
training:version         GET    login login login login 403    403   403   200
training:versions        GET    login login login login 403    403   403   200
training:watch           GET    login login login login 403    403   403   200

# route                  method anon  owner other key   holder peer  judge admin
accounts:api-key-revoke  POST   login login login login 303    404   404   404
accounts:api-keys        GET    login login login login 200    200   200   200
accounts:api-keys        POST   login login login login 200    200   200   200
accounts:invitation      GET    200   200   200   200   200    200   200   200
accounts:invitation      POST   302   302   302   302   302    302   302   302
accounts:login           GET    200   200   200   200   302    302   302   302
accounts:login           POST   200   200   200   200   302    302   302   302
accounts:logout          POST   302   302   302   302   302    302   302   302
accounts:password        GET    login login login login 200    200   200   200
accounts:password        POST   login login login login 200    200   200   200

# route                  method anon  owner other key   holder peer  judge admin
api-batch                GET    404   200   404   404   404    404   404   404
api-batch                DELETE 404   204   404   404   404    404   404   404
api-batches              POST   202   202   202   202   202    202   202   202
api-bulk                 POST   401   401   401   403   403    403   201   201
api-bulk-batch           DELETE 401   401   401   403   403    403   200   404
api-claims               POST   401   401   401   403   200    200   200   200
api-claims               DELETE 401   401   401   403   200    200   200   200
api-claims-renew         POST   401   401   401   403   200    200   200   200
api-disputes             GET    401   401   401   403   403    403   200   200
api-docs                 GET    200   200   200   200   200    200   200   200
api-flag                 POST   404   201   404   404   404    404   404   404
api-flag                 DELETE 404   204   404   404   404    404   404   404
api-gold                 PUT    401   401   401   403   403    403   400   400
api-gold                 DELETE 401   401   401   403   403    403   404   404
api-history              GET    401   401   401   403   403    403   200   200
api-invitations          POST   401   401   401   403   403    403   403   201
api-judge                POST   401   401   401   403   403    403   201   201
api-judge                DELETE 401   401   401   403   403    403   409   409
api-live                 POST   200   200   200   200   200    200   200   200
api-me                   GET    401   401   401   403   200    200   200   200
api-pause                DELETE 401   401   401   403   403    403   403   204
api-people               GET    401   401   401   403   403    403   200   200
api-photo                GET    404   200   404   404   404    404   404   404
api-photo                PATCH  404   200   404   404   404    404   404   404
api-photo                DELETE 404   204   404   404   404    404   404   404
api-photo-links          POST   404   201   404   404   404    404   404   404
api-photo-links          DELETE 404   204   404   404   404    404   404   404
api-photos               GET    200   200   200   200   200    200   200   200
api-photos               POST   202   202   202   202   202    202   202   202
api-photos               DELETE 204   204   204   204   204    204   204   204
api-queue                GET    401   401   401   403   200    200   200   200
api-schema               GET    200   200   200   200   200    200   200   200
api-skip                 POST   401   401   401   403   204    404   404   404
api-undo                 POST   401   401   401   403   409    409   409   409
api-vote                 POST   401   401   401   403   201    404   404   404
api-vote                 PUT    401   401   401   403   409    404   404   404

# route                  method anon  owner other key   holder peer  judge admin
api-compare              GET    401   401   401   403   403    403   403   404
api-data-set             GET    401   401   401   403   403    403   403   200
api-data-sets            GET    401   401   401   403   403    403   403   200
api-drift                GET    401   401   401   403   403    403   403   200
api-gate                 GET    401   401   401   403   403    403   403   200
api-gate-faces           GET    401   401   401   403   403    403   403   200
api-promote              POST   401   401   401   403   403    403   403   201
api-promotions           GET    401   401   401   403   403    403   403   200
api-retrain-without      POST   401   401   401   403   403    403   403   409
api-rollback             POST   401   401   401   403   403    403   403   409
api-run                  GET    401   401   401   403   403    403   403   200
api-run-cancel           POST   401   401   401   403   403    403   403   409
api-runs                 GET    401   401   401   403   403    403   403   200
api-runs                 POST   401   401   401   403   403    403   403   409
api-schedule             GET    401   401   401   403   403    403   403   200
api-schedule             PUT    401   401   401   403   403    403   403   200
api-shadow               DELETE 401   401   401   403   403    403   403   204
api-shadows              GET    401   401   401   403   403    403   403   200
api-shadows              POST   401   401   401   403   403    403   403   201
api-training             GET    401   401   401   403   403    403   403   200
api-version              GET    401   401   401   403   403    403   403   200
api-versions             GET    401   401   401   403   403    403   403   200

# route                  method anon  owner other key   holder peer  judge admin
admin:index              GET    login login login login login  login login 200
admin:jsi18n             GET    login login login login login  login login 200
admin:login              GET    200   200   200   200   200    200   200   302
admin:login              POST   200   200   200   200   200    200   200   200
admin:logout             GET    302   302   302   302   302    302   302   405
admin:logout             POST   302   302   302   302   302    302   302   302
"""

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
REFUSALS = {"login", "401", "403", "404", "405"}


@dataclass(frozen=True)
class Row:
    route: str
    method: str
    expected: dict[str, str]


@cache
def rows() -> dict[tuple[str, str], Row]:
    found = {}
    for line in TABLE.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        route, method, *cells = line.split()
        assert len(cells) == len(ACTORS), f"{line!r} has not {len(ACTORS)} cells"
        expected = dict(zip(ACTORS, cells, strict=True))
        assert (route, method) not in found, f"{route} {method} stands there twice"
        found[route, method] = Row(route, method, expected)
    return found


def patterns(
    resolver: URLResolver, namespace: str = ""
) -> Iterator[tuple[str, URLPattern]]:
    """Every address of the site as ``namespace:name``."""
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from patterns(entry, inner)
        else:
            yield f"{namespace}{entry.name}", entry


@cache
def routes() -> dict[str, URLPattern]:
    """Of Django's admin site only what is not behind its one door, ``admin_view``."""
    found = dict(patterns(get_resolver()))
    return {
        name: pattern
        for name, pattern in found.items()
        if not name.startswith("admin:") or name in ADMIN_DOORS
    }


ADMIN_DOORS = ("admin:index", "admin:login", "admin:logout", "admin:jsi18n")


@dataclass
class World:
    """One of everything that somebody could want and may not have."""

    owner: Visitor = field(default_factory=new_visitor)
    other: Visitor = field(default_factory=new_visitor)
    run: TrainingRun | None = None
    shadow: Shadow | None = None

    def __post_init__(self) -> None:
        self.people: dict[str, User] = {
            "holder": PersonFactory(username="anna-annotates"),
            "peer": PersonFactory(username="carl-colleague"),
            "judge": PersonFactory(username="jill-judges", role=Role.ADJUDICATOR),
            "admin": PersonFactory(
                username="alma-admin",
                role=Role.ADMIN,
                is_staff=True,
                is_superuser=True,
            ),
        }
        # What the owner gave: one photo that may train, one that may not.
        self.batch = Batch.objects.create(visitor_key=self.owner.key)
        self.face: Face = FaceFactory(
            photo=ReadPhotoFactory(
                visitor_key=self.owner.key,
                file_name=stored_astronaut(),
                batch=self.batch,
            )
        )
        self.photo: Photo = self.face.photo
        self.private_face: Face = FaceFactory(
            photo=ReadPhotoFactory(visitor_key=self.owner.key, training_consent_at=None)
        )
        self.link, self.share_token = create_share_link(photo=self.photo)
        self.flag = submit_flag(
            face=self.face,
            visitor_key=self.owner.key,
            verdict="sad",
            comment="word-of-the-owner",
        )
        self.private_flag = submit_flag(
            face=self.private_face,
            visitor_key=self.owner.key,
            verdict="sad",
            comment="word-not-for-training",
        )
        ReadPhotoFactory(visitor_key=self.other.key)
        # What the annotator holds, and a face on which people disagree.
        self.disputed: Face = QueuedFaceFactory(
            photo=ReadPhotoFactory(file_name=stored_astronaut())
        )
        for name, verdict in (("x", "happy"), ("y", "sad"), ("z", "unclear")):
            voter = PersonFactory(username=f"voter-{name}-of-the-dispute")
            (claim,) = claim_faces(person=voter)
            submit_correction(
                person=voter,
                claim_id=claim.pk,
                verdict=verdict,
                comment="word-of-a-voter",
            )
        self.bulk = adjudicate_many(
            person=self.people["judge"],
            face_ids=[QueuedFaceFactory().pk],
            verdict="happy",
        )
        QueuedFaceFactory(photo=ReadPhotoFactory(file_name=stored_astronaut()))
        (self.claim,) = claim_faces(person=self.people["holder"])
        # What opens an account or an API.
        self.invitation, self.invitation_secret = invite_person(
            role=Role.ANNOTATOR,
            invited_by=self.people["admin"],
            note="note-of-an-invitation",
        )
        self.api_key, _ = create_api_key(
            person=self.people["holder"], name="name-of-a-key"
        )
        _, self.program_key = create_api_key(
            person=self.people["admin"], name="key-of-the-program"
        )

    def train(self, folder: Path) -> None:
        """One run with its candidate, which read along for a while. It takes its
        time, and is there only where it is asked for."""
        champion = get_champion()
        assert champion is not None
        self.run = judged_run(champion=champion, folder=folder)
        assert self.run.candidate is not None
        self.shadow = Shadow.objects.create(
            candidate=self.run.candidate,
            champion=champion,
            ends_at=timezone.now(),
            ended_at=timezone.now(),
        )

    def client(self, actor: str, **options: Any) -> Client:
        client = Client(**options)
        if actor in self.people:
            client.force_login(
                self.people[actor], "django.contrib.auth.backends.ModelBackend"
            )
        elif actor in ("owner", "other"):
            client.cookies[COOKIE_NAME] = getattr(self, actor).token
        elif actor == "key":
            client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {self.program_key}"
        return client

    def address(self, route: str, *, unknown: bool = False) -> str:
        """Where the route leads to a thing of this world, or, where ``unknown``, to
        one that never was."""
        wanted = routes()[route].pattern.regex.groupindex
        values = self.parameters(route)
        missing = set(wanted) - set(values)
        assert not missing, (
            f"{route} has the parameter {', '.join(sorted(missing))}: add it to "
            "World.parameters in tests/test_authorisation.py."
        )
        if unknown:
            values = {
                name: uuid.uuid4()
                if isinstance(value, uuid.UUID)
                else value
                if isinstance(value, int) or name == "kind"
                else "nobody-has-this"
                for name, value in values.items()
            }
        return reverse(route, kwargs={name: values[name] for name in wanted})

    def parameters(self, route: str) -> dict[str, Any]:
        """What the addresses of a route name."""
        return {
            "photo_id": self.photo.pk,
            "batch_id": self.batch.pk,
            "index": self.face.index,
            "token": self.share_token,
            "flag_id": self.flag.pk,
            "secret": self.invitation_secret
            if route == "accounts:invitation"
            else receipt_secret(self.flag.pk),
            "claim_id": self.claim.pk,
            "face_id": self.disputed.pk,
            "batch": self.bulk,
            "invitation_id": self.invitation.pk,
            "key_id": self.api_key.pk,
            "username": self.people["peer"].username,
            "name": "hopper",
            "kind": "csv",
            "number": 1,
            "version": self.candidate,
            "shadow_id": self.shadow.pk if self.shadow else uuid.uuid4(),
        }

    @property
    def candidate(self) -> str:
        """What the run made; a name of nothing where none was made."""
        made = self.run.candidate if self.run else None
        return made.version if made else "none"

    def body(self, route: str, method: str) -> dict[str, Any]:
        """What the test client is told to send: fields of a form, or JSON."""
        if method in ("GET", "DELETE"):
            return {}
        picture = encode(Image.new("RGB", (64, 64), "grey"))

        def image() -> SimpleUploadedFile:
            return SimpleUploadedFile("photo.jpg", picture, "image/jpeg")

        forms: dict[str, Callable[[], dict[str, Any]]] = {
            "photos:upload": lambda: {"image": image()},
            "api-photos": lambda: {"image": image()},
            "api-batches": lambda: {"image": image()},
            "api-live": lambda: {"frame": image()},
            "photos:consent": lambda: {"keep": "1"},
            "flags:flag": lambda: {"verdict": "happy"},
            "accounts:login": lambda: {"username": "x", "password": "y"},
            "accounts:invitation": lambda: {
                "username": "newcomer",
                "password": "a-long-enough-word",
            },
            "accounts:api-keys": lambda: {"name": "another"},
            "curation:vote": lambda: {"verdict": "happy"},
            "curation:judge": lambda: {"verdict": "happy"},
            "curation:alike": lambda: {
                "face": [str(self.disputed.pk)],
                "verdict": "happy",
            },
            "curation:golds": lambda: {"face": [str(self.disputed.pk)]},
            "training:start": lambda: {"mode": "head"},
            "training:promote": lambda: {"champion": "tiny-1", "reason": "so"},
            "training:rollback": lambda: {"champion": "tiny-1"},
            "training:schedule": lambda: {"time": "03:00", "often": "*"},
            "training:start-shadow": lambda: {"candidate": self.candidate},
            "curation:invite": lambda: {"role": "annotator"},
            "curation:change-person": lambda: {"action": "adjudicator"},
        }
        documents: dict[str, dict[str, Any]] = {
            "api-photo": {"keep": True},
            "api-flag": {"verdict": "happy"},
            "api-claims": {"count": 1},
            "api-vote": {"verdict": "happy"},
            "api-judge": {"verdict": "happy"},
            "api-bulk": {"faces": [str(self.disputed.pk)], "verdict": "happy"},
            "api-invitations": {"role": "annotator"},
            "api-runs": {"mode": "head"},
            "api-promote": {"champion": "tiny-1", "reason": "so"},
            "api-rollback": {"champion": "tiny-1"},
            "api-schedule": {"enabled": False},
            "api-shadows": {"candidate": self.candidate},
        }
        if route in documents:
            return {
                "data": json.dumps(documents[route]),
                "content_type": "application/json",
            }
        data = forms.get(route, dict)()
        if method == "POST" and (data or not route.startswith("api-")):
            return {"data": data}
        return {"data": b"{}", "content_type": "application/json"}

    def ask(self, actor: str, method: str, address: str, route: str) -> HttpResponse:
        client = self.client(actor)
        send = getattr(client, method.lower())
        response: HttpResponse = send(address, **self.body(route, method))
        return response

    def secrets_from(self, actor: str) -> set[str]:
        """Words that must not be in any answer to this asker."""
        of_owner = {
            str(self.photo.pk),
            photo_secret(self.photo.pk),
            self.photo.file_name,
            self.owner.key,
            str(self.batch.pk),
            self.share_token,
            str(self.flag.pk),
            receipt_secret(self.flag.pk),
        }
        words = {"word-of-the-owner"}
        private = {str(self.private_face.pk), "word-not-for-training"}
        of_private_photo = {
            str(self.private_face.photo_id),
            photo_secret(self.private_face.photo_id),
        }
        votes = {"word-of-a-voter", "-of-the-dispute"}
        claim = {str(self.claim.pk)}
        keys = {"name-of-a-key", self.api_key.hint, str(self.api_key.pk)}
        invitation = {self.invitation_secret, "note-of-an-invitation"}
        program = {"key-of-the-program", self.program_key}
        everything = (
            of_owner | words | private | of_private_photo | votes | claim | keys
        ) | (invitation | program)
        may_know = {
            # Of a visitor's own photos everything; of people nothing.
            "owner": of_owner | words | of_private_photo,
            "holder": claim | keys,
            # Whoever decides sees what was said, also by visitors, and whose face it
            # is in the export; but never what opens a photo.
            "judge": votes
            | words
            | {str(self.photo.pk), self.owner.key, str(self.flag.pk)}
            | {"note-of-an-invitation"},
            "admin": votes
            | words
            | {str(self.photo.pk), self.owner.key, str(self.flag.pk)}
            | {"note-of-an-invitation", "key-of-the-program"},
        }
        return everything - may_know.get(actor, set())


@pytest.fixture(autouse=True)
def media(settings: LazySettings, tmp_path: Path) -> Path:
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


@pytest.fixture
def world(champion: ModelVersion) -> World:
    return World()


@pytest.fixture
def champion(db: None, tmp_path: Path) -> ModelVersion:
    version = register_model_version(path=write_tiny_model(tmp_path, "tiny-1"))
    promote_model_version(model_version=version, promoted_by=None, reason="test")
    return version


def outcome(response: HttpResponse) -> str:
    """A status, or ``login`` where the answer sends to the log-in page."""
    to = response.headers.get("Location", "")
    if response.status_code == 302 and "/login/?next=" in to:
        return "login"
    return str(response.status_code)


def content(response: HttpResponse) -> bytes:
    if response.streaming:
        return b"".join(response.streaming_content)  # type: ignore[attr-defined]
    return response.content


def told(response: HttpResponse) -> str:
    """Everything that the answer says: body, headers and cookies."""
    return "\n".join(
        (
            content(response).decode(errors="replace"),
            *(f"{name}: {value}" for name, value in response.headers.items()),
            response.cookies.output(),
        )
    )


def undone(action: Callable[[], None]) -> None:
    """Run it in a transaction that never happened."""
    with transaction.atomic():
        action()
        transaction.set_rollback(True)


def test_every_address_has_its_line() -> None:
    known = {route for route, _ in rows()}
    missing = sorted(set(routes()) - known)
    gone = sorted(known - set(routes()))

    assert not missing, (
        f"The address {', '.join(missing)} has no line: say in TABLE of "
        "tests/test_authorisation.py, for each of its methods, what every asker gets."
    )
    assert not gone, f"TABLE names {', '.join(gone)}, which is no address any more."


@pytest.mark.parametrize("route", sorted(routes()))
def test_an_address_does_for_everybody_what_its_lines_say(
    world: World, route: str, tmp_path: Path
) -> None:
    if routes()[route].lookup_str.startswith("webapp.training."):
        world.train(tmp_path)
    lines = [row for (name, _), row in rows().items() if name == route]
    for row in lines:
        check_answers(world, row)
        if routes()[route].pattern.regex.groupindex:
            check_foreign_things(world, row)
        if row.method == "POST" and not route.startswith("api-"):
            check_forms_of_other_sites(world, row)
        if route.startswith("api-") and row.expected["anon"] == "401":
            check_requests_of_other_sites(world, row)
    if route not in ADMIN_DOORS:
        check_other_methods(world, route)


def check_answers(world: World, row: Row) -> None:
    """Everybody gets what the line says, and learns nothing beside it."""
    address = world.address(row.route)
    opened = opened_by(world, row.route)
    got: dict[str, str] = {}
    leaks: list[str] = []

    def ask(actor: str) -> None:
        response = world.ask(actor, row.method, address, row.route)
        got[actor] = outcome(response)
        said = told(response)
        # Whoever came by a secret address may see what it opens.
        leaks.extend(
            f"{actor} learns {word!r}"
            for word in world.secrets_from(actor) - opened
            if word in said and word not in address
        )

    for actor in ACTORS:
        undone(lambda actor=actor: ask(actor))

    assert got == row.expected, (
        f"{row.route} {row.method}\n  is     {' '.join(got.values())}\n"
        f"  should {' '.join(row.expected.values())}"
    )
    assert leaks == []


def opened_by(world: World, route: str) -> set[str]:
    """What an address shows because it carries a secret of its own."""
    if route.startswith("photos:shared"):
        return {str(world.photo.pk)}
    if route == "flags:receipt":
        # The way back to the photo, which asks for a secret of its own.
        return {"word-of-the-owner", str(world.photo.pk)}
    return set()


def check_foreign_things(world: World, row: Row) -> None:
    """A foreign thing looks like one that never was, to the last word: whoever
    guesses learns nothing by a right guess."""

    def ask(actor: str) -> None:
        real, unreal = (
            world.ask(actor, row.method, address, row.route)
            for address in (
                world.address(row.route),
                world.address(row.route, unknown=True),
            )
        )
        assert outcome(unreal) == outcome(real) == "404"
        assert content(unreal) == content(real)

    for actor in ACTORS:
        if row.expected[actor] == "404":
            undone(lambda actor=actor: ask(actor))


def check_other_methods(world: World, route: str) -> None:
    """Methods without a line are refused."""
    address = world.address(route)
    taken = []

    def ask(actor: str, method: str) -> None:
        response = world.ask(actor, method, address, route)
        if outcome(response) not in REFUSALS:
            taken.append((actor, method, response.status_code))

    for method in METHODS:
        if (route, method) not in rows():
            for actor in ("anon", "owner", "admin"):
                undone(lambda actor=actor, method=method: ask(actor, method))

    assert taken == [], f"{route} takes what no line of TABLE names"


def check_forms_of_other_sites(world: World, row: Row) -> None:
    """No page takes a form that does not come from the site itself."""
    for actor in ("owner", "holder", "admin"):
        client = world.client(actor, enforce_csrf_checks=True)
        response = client.post(
            world.address(row.route), **world.body(row.route, row.method)
        )
        # Whoever has logged in already is led on from there, and nothing is taken.
        led_on = row.route == "accounts:login" and actor != "owner"
        assert response.status_code == (302 if led_on else 403), actor


def check_requests_of_other_sites(world: World, row: Row) -> None:
    """The API of people with a session changes nothing for another site."""
    if row.method == "GET":
        return
    client = world.client("admin", enforce_csrf_checks=True)
    send = getattr(client, row.method.lower())
    response = send(world.address(row.route), **world.body(row.route, row.method))
    assert response.status_code == 403


def test_admin_site_is_for_admins_alone(world: World) -> None:
    names = [
        name
        for name, pattern in patterns(get_resolver())
        if name.startswith("admin:")
        and name not in ADMIN_DOORS
        and not pattern.pattern.converters
        and not pattern.pattern.regex.groups
    ]
    assert len(names) >= 10

    for name in names:
        address = reverse(name)
        for actor in ACTORS[:-1]:
            response = world.ask(actor, "GET", address, name)
            assert outcome(response) == "login", (name, actor)
        assert world.ask("admin", "GET", address, name).status_code in (200, 302, 403)


# --- What lists, counts and exports tell ------------------------------------------

FILTERS = (
    "",
    "?visitor_key={key}",
    "?visitor={key}&owner={key}",
    "?id={photo}",
    "?photo_id={photo}",
    "?batch={batch}",
    "?page=2",
    "?page=-1",
    "?page=last&per_page=10000",
    "?secret={wrong}",
    "?ordering=visitor_key",
    "?q={photo}",
)


@pytest.mark.parametrize("words", FILTERS)
@pytest.mark.parametrize("route", ["api-photos", "photos:mine"])
def test_no_filter_shows_photos_of_others(world: World, route: str, words: str) -> None:
    query = words.format(
        key=world.owner.key,
        photo=world.photo.pk,
        batch=world.batch.pk,
        wrong=photo_secret(uuid.uuid4()),
    )

    for actor in ("anon", "other", "key", "holder", "judge", "admin"):
        said = told(world.client(actor).get(reverse(route) + query))
        of_the_query = {word for word in world.secrets_from(actor) if word in query}
        assert not [
            word for word in world.secrets_from(actor) - of_the_query if word in said
        ], (actor, query)


def test_counts_are_those_of_the_asker(world: World) -> None:
    counts = {
        actor: len(world.client(actor).get(reverse("api-photos")).json())
        for actor in ACTORS
    }

    assert counts == {**dict.fromkeys(ACTORS, 0), "owner": 2, "other": 1}


def test_deleting_all_deletes_only_ones_own(world: World) -> None:
    for actor in ("anon", "key", "holder", "admin", "other"):
        world.client(actor).delete(reverse("api-photos"))
        world.client(actor).post(reverse("photos:delete-all"))

    left = set(Photo.objects.filter(visitor_key=world.owner.key))

    assert left == {world.photo, world.private_face.photo}
    assert not Photo.objects.filter(visitor_key=world.other.key).exists()


def test_wrong_secrets_open_nothing(world: World) -> None:
    address = reverse("api-photo", args=[world.photo.pk])
    client = world.client("other")
    wrong = [photo_secret(uuid.uuid4()), "", "0" * 40, "é" * 40, "\x00", "a" * 10_000]

    for secret in wrong:
        assert client.get(address, {"secret": secret}).status_code == 404
    for secret in ("0" * 40, "x" * 5_000):
        response = client.get(address, headers={"X-Photo-Secret": secret})
        assert response.status_code == 404
    assert client.get(
        address, {"secret": photo_secret(world.photo.pk)}
    ).status_code == (200)


def test_a_link_shows_and_changes_nothing(world: World) -> None:
    page = world.client("other").get(reverse("photos:shared", args=[world.share_token]))

    said = told(page)
    assert page.status_code == 200
    assert photo_secret(world.photo.pk) not in said
    assert "<form" not in said.partition("<main")[2].partition("</main")[0]


def test_batch_table_holds_only_its_photos(world: World) -> None:
    response = world.client("owner").get(
        reverse("photos:batch-csv", args=[world.batch.pk])
    )

    assert response.content.count(b"\r\n") == 2
    assert str(world.private_face.photo_id).encode() not in response.content


@pytest.mark.parametrize("kind", ["csv", "jsonl", "zip"])
def test_export_holds_only_what_may_be_used_and_no_key_to_a_photo(
    world: World, kind: str
) -> None:
    response = world.client("judge").get(f"/curation/export/labels.{kind}")
    data = content(response)
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = "\n".join(archive.namelist())
            data = names.encode() + archive.read(
                next(name for name in archive.namelist() if name.endswith("l"))
            )
    said = data.decode()

    assert "word-of-the-owner" in said
    assert [word for word in world.secrets_from("judge") if word in said] == []


def test_whoever_has_not_voted_learns_nothing_of_votes(world: World) -> None:
    for route in ("curation:history", "curation:judged-face", "api-history"):
        response = world.client("holder").get(world.address(route))
        assert response.status_code == 403
        assert b"word-of-a-voter" not in content(response)


def test_revoked_key_and_closed_account_open_nothing(world: World) -> None:
    ApiKey.objects.update(revoked_at=timezone.now())
    User.objects.update(is_active=False)

    assert world.client("key").get(reverse("api-photos")).status_code == 401
    for actor in world.people:
        client = world.client(actor)
        assert outcome(client.get(reverse("curation:dashboard"))) == "login"
        assert client.get(reverse("api-queue")).status_code in (401, 403)


def test_a_key_that_may_train_opens_the_training_api_and_nothing_more(
    world: World, tmp_path: Path
) -> None:
    world.train(tmp_path)
    _, secret = create_api_key(
        person=world.people["admin"], name="nightly", may_train=True
    )
    trainer = Client(headers={"Authorization": f"Bearer {secret}"})
    for (route, method), row in rows().items():
        if not route.startswith("api-") or method != "GET":
            continue
        trains = routes()[route].lookup_str.startswith("webapp.training.")
        wanted = row.expected["admin" if trains else "key"]
        assert outcome(trainer.get(world.address(route))) == wanted, route


def test_ended_links_and_invitations_open_nothing(world: World) -> None:
    past = timezone.now() - timedelta(seconds=1)
    ShareLink.objects.update(expires_at=past)
    Invitation.objects.update(expires_at=past)

    for route in ("photos:shared", "photos:shared-image", "accounts:invitation"):
        assert world.client("other").get(world.address(route)).status_code == 404


def test_nobody_raises_their_own_role(world: World) -> None:
    for actor in ("holder", "judge"):
        person = world.people[actor]
        client = world.client(actor)
        client.post(
            reverse("curation:change-person", args=[person.username]),
            {"action": "admin"},
        )
        client.post(reverse("api-invitations"), {"role": "admin"})
        client.post(reverse("curation:invite"), {"role": "admin"})
        person.refresh_from_db()
        assert person.role != Role.ADMIN
    assert Invitation.objects.filter(role=Role.ADMIN).count() == 0


def test_refused_askers_change_nothing(world: World, tmp_path: Path) -> None:
    """Whatever the table refuses leaves every row as it was."""
    world.train(tmp_path)

    def state() -> list[Any]:
        return [
            list(model.objects.order_by("pk").values())
            for model in (
                *(Photo, Batch, ShareLink, Correction, Claim, ApiKey),
                *(TrainingRun, Shadow, ModelVersion, Promotion, PeriodicTask),
            )
        ] + [list(User.objects.order_by("pk").values("username", "role", "is_active"))]

    before = state()
    for row in rows().values():
        if row.method == "GET" or row.route in ("accounts:login", "admin:login"):
            continue
        for actor in ACTORS:
            if row.expected[actor] in REFUSALS and actor != "key":
                world.ask(actor, row.method, world.address(row.route), row.route)

    assert state() == before
