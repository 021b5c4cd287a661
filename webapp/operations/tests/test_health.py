"""Is it well, what does it count, what did admins do: asked from outside."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    transaction,
)
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from gunicorn.config import Config
from gunicorn.http.errors import InvalidHeader, InvalidRequestLine
from gunicorn.workers.base import Worker

from ml.runtime import CPU, CUDA
from tests.pictures import astronaut, encode
from webapp.accounts import audit
from webapp.accounts.models import AuditEntry, Role, User
from webapp.accounts.services import change_person, invite_person
from webapp.core.logs import (
    ContextFilter,
    GunicornLogger,
    OneLineJson,
    job_id,
    request_id,
)
from webapp.core.storage import StorageAway
from webapp.curation.services.queue import IMPORTED
from webapp.operations import health, hours, presence
from webapp.operations.exposition import worker_exposition
from webapp.operations.models import Presence, ServingHour
from webapp.photos.models import FailureReason, Photo, PhotoStatus, Prediction
from webapp.photos.services import serving
from webapp.photos.services.processing import (
    claim_photo,
    give_back_photo,
    process_claimed_photo,
)
from webapp.photos.services.sharing import create_share_link
from webapp.photos.tests.factories import PhotoFactory
from webapp.registry.models import ModelVersion

TOKEN = "a-token-for-prometheus"


@pytest.fixture(autouse=True)
def nothing_verified() -> Iterator[None]:
    health._verified.clear()
    yield
    health._verified.clear()


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.create_user(
        "max", password="secret-of-max-1", role=Role.ADMIN, is_staff=True
    )


def read_one() -> Photo:
    photo = claim_photo(photo_id=PhotoFactory().pk)
    assert photo is not None
    process_claimed_photo(photo=photo)
    photo.refresh_from_db()
    return photo


@pytest.fixture
def beat(db: None) -> None:
    presence.say_present(
        name="beat@host1", queues="", provider="", started_at=timezone.now()
    )


class TestReadiness:
    def test_all_is_well(
        self, client: Client, champion: ModelVersion, beat: None
    ) -> None:
        answer = client.get("/readyz")

        assert answer.status_code == 200
        parts = ("database", "storage", "model", "broker", "beat")
        assert answer.json() == {"status": "ok", "checks": dict.fromkeys(parts, "ok")}

    def test_missing_beat_is_degraded_and_not_dead(
        self, client: Client, champion: ModelVersion, beat: None
    ) -> None:
        presence.say_present(
            name="inference@host1",
            queues="default,inference",
            provider="",
            started_at=timezone.now(),
        )
        long_ago = timezone.now() - timedelta(minutes=1)
        Presence.objects.filter(name="beat@host1").update(seen_at=long_ago)

        answer = client.get("/readyz")

        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        assert "no beat is in sight" in answer.json()["checks"]["beat"]

    def test_missing_broker_is_degraded_and_not_dead(
        self, client: Client, champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "count_waiting_messages", lambda: None)

        answer = client.get("/readyz")

        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        assert "broker does not answer" in answer.json()["checks"]["broker"]

    def test_model_file_that_is_another_shows(
        self, client: Client, champion: ModelVersion
    ) -> None:
        default_storage.delete(champion.file_name)
        default_storage.save(champion.file_name, ContentFile(b"something else"))

        answer = client.get("/readyz")

        assert answer.status_code == 503
        assert "is not the one" in answer.json()["checks"]["model"]

    @pytest.mark.django_db
    def test_site_without_a_model_is_not_ready(self, client: Client) -> None:
        answer = client.get("/readyz")

        assert answer.status_code == 503
        assert "bootstrap" in answer.json()["checks"]["model"]

    def test_store_that_takes_no_file_shows(
        self, client: Client, champion: ModelVersion, settings: LazySettings
    ) -> None:
        settings.MEDIA_ROOT = "/dev/null/nowhere"

        answer = client.get("/readyz")

        assert answer.status_code == 503
        assert "no file can be kept" in answer.json()["checks"]["storage"]
        assert "/dev/null" not in answer.content.decode()

    def test_database_that_is_away_shows_and_alive_stays_alive(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away() -> None:
            raise OperationalError("password=secret refused")

        monkeypatch.setattr(connection, "cursor", away)
        monkeypatch.setattr(health, "get_champion", away)

        answer = client.get("/readyz")

        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == "the database does not answer"
        assert "secret" not in answer.content.decode()
        assert client.get("/livez").status_code == 200


class TestMetrics:
    def scrape(self, client: Client) -> str:
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.content.decode()

    def test_without_the_token_there_is_nothing(
        self, client: Client, db: None, settings: LazySettings
    ) -> None:
        assert client.get("/metrics").status_code == 404
        assert (
            client.get("/metrics", headers={"Authorization": "Bearer "}).status_code
            == 404
        )
        settings.METRICS_TOKEN = TOKEN
        assert client.get("/metrics").status_code == 404
        wrong = {"Authorization": "Bearer wrong"}
        assert client.get("/metrics", headers=wrong).status_code == 404

    def test_what_happened_is_counted(
        self, client: Client, champion: ModelVersion, settings: LazySettings
    ) -> None:
        settings.METRICS_TOKEN = TOKEN
        client.post("/api/v1/photos", {"image": ContentFile(b"no photo", "x.jpg")})
        client.post(
            "/api/v1/photos",
            {"image": ContentFile(encode(astronaut()), name="photo.jpg")},
        )
        read_one()

        said = self.scrape(client)

        assert 'mien_uploads_refused_total{code="' in said
        for stage in (
            *("decode", "store", "wait", "load", "detect", "classify"),
            *("finish", "total"),
        ):
            assert f'mien_stage_seconds_count{{stage="{stage}"}}' in said
        assert 'mien_predictions_total{emotion="' in said
        assert 'version="tiny-1"' in said
        assert 'mien_queue_photos{status="queued"} 1.0' in said
        assert "mien_queue_oldest_seconds" in said
        assert "mien_broker_up 1.0" in said
        assert 'mien_champion{version="tiny-1"} 1.0' in said
        assert 'mien_photos_ended_total{reason="",status="done"}' in said

    def test_methods_that_somebody_made_up_count_as_one(
        self, client: Client, settings: LazySettings, db: None
    ) -> None:
        settings.METRICS_TOKEN = TOKEN
        for method in ("QQQQ1", "QQQQ2", "get"):
            client.generic(method, "/livez")
        client.patch("/livez")

        said = self.scrape(client)

        assert 'mien_requests_total{method="other",status="405"}' in said
        assert 'mien_requests_total{method="PATCH",status="405"}' in said
        assert "QQQQ" not in said

    def test_worker_of_its_own_host_tells_with_the_same_token(
        self, settings: LazySettings
    ) -> None:
        settings.METRICS_TOKEN = TOKEN
        statuses = []

        def ask(authorization: str) -> bytes:
            return b"".join(
                worker_exposition(
                    {"HTTP_AUTHORIZATION": authorization},
                    lambda status, headers: statuses.append(status),
                )
            )

        assert b"mien_stage_seconds" in ask(f"Bearer {TOKEN}")
        assert b"mien" not in ask("")
        assert statuses == ["200 OK", "404 Not Found"]

    def test_change_of_answers_is_told_once_there_is_enough(
        self, client: Client, champion: ModelVersion, settings: LazySettings
    ) -> None:
        settings.METRICS_TOKEN = TOKEN
        now = timezone.now().replace(minute=0, second=0, microsecond=0)
        serve_hours(now - timedelta(days=5), happy=300, sad=100)
        assert "mien_drift_psi" not in self.scrape(client)
        serve_hours(now - timedelta(hours=2), happy=100, sad=300)

        said = self.scrape(client)

        psi = float(said.split('mien_drift_psi{version="tiny-1"} ')[1].split()[0])
        assert psi > 0.25
        assert "mien_not_sure_share" in said


def serve_hours(hour: datetime, *, happy: int, sad: int) -> None:
    ServingHour.objects.create(
        hour=hour,
        version="tiny-1",
        photos=happy + sad,
        faces=happy + sad,
        not_sure=10,
        emotions={"happy": happy, "sad": sad, "surprise": 0, "neutral": 0},
        wait_p50_ms=50,
        wait_p95_ms=90,
    )


class TestHours:
    def test_hours_outlive_their_photos(self, champion: ModelVersion) -> None:
        photo = read_one()
        assert hours.summarise_hours() == 1
        photo.delete()

        assert hours.summarise_hours() == 0
        row = ServingHour.objects.get()
        assert (row.version, row.photos, row.faces) == ("tiny-1", 1, 1)
        assert sum(row.emotions.values()) == 1
        assert row.wait_p50_ms == row.wait_p95_ms > 0

    def test_photo_that_is_deleted_within_the_hour_was_read_all_the_same(
        self, champion: ModelVersion
    ) -> None:
        deleted, _ = read_one(), read_one()
        hours.summarise_hours()
        deleted.delete()

        assert hours.summarise_hours() == 0
        assert ServingHour.objects.get().photos == 2

    def test_faces_that_another_version_read_again_are_not_what_it_served(
        self, champion: ModelVersion
    ) -> None:
        first, second = read_one(), read_one()
        other = ModelVersion.objects.create(version="other", manifest={})
        Prediction.objects.filter(face__photo=second).update(model_version=other)
        Photo.objects.filter(pk=second.pk).update(model_version=other)
        again = Prediction.objects.get(face__photo=first)
        again.pk, again.model_version = uuid.uuid4(), other
        again.save(force_insert=True)

        hours.summarise_hours()

        rows = ServingHour.objects.values_list("version", "photos", "faces")
        assert sorted(rows) == [("other", 1, 1), ("tiny-1", 1, 1)]

    def test_photos_that_an_admin_brought_in_are_not_counted(
        self, champion: ModelVersion
    ) -> None:
        read_one()
        imported = read_one()
        Photo.objects.filter(pk=imported.pk).update(consent_version=IMPORTED)

        hours.summarise_hours()

        row = ServingHour.objects.get()
        assert (row.photos, row.faces, sum(row.emotions.values())) == (1, 1, 1)

    def test_counting_again_changes_nothing(self, champion: ModelVersion) -> None:
        read_one()
        hours.summarise_hours()
        before = ServingHour.objects.values().get()
        hours.summarise_hours()

        assert ServingHour.objects.values().get() == before

    def test_failed_photos_are_counted_apart(self, champion: ModelVersion) -> None:
        photo = PhotoFactory(attempts=2)
        claimed = claim_photo(photo_id=photo.pk)
        assert claimed is not None
        claimed.refresh_from_db()
        give_back_photo(photo=claimed, reason=FailureReason.MODEL)
        assert Photo.objects.get().status == PhotoStatus.FAILED

        hours.summarise_hours()

        row = ServingHour.objects.get()
        assert (row.version, row.photos, row.faces) == ("", 1, 0)

    def test_hour_that_the_beat_slept_through_is_counted(
        self, champion: ModelVersion
    ) -> None:
        photo = read_one()
        long_ago = timezone.now() - timedelta(hours=9)
        Photo.objects.update(done_at=long_ago, created_at=long_ago)

        assert hours.summarise_hours() == 1
        assert ServingHour.objects.get().hour == long_ago.replace(
            minute=0, second=0, microsecond=0
        )
        photo.delete()
        assert hours.summarise_hours() == 0

    def test_percentile_is_a_value_that_was_there(self) -> None:
        values = [float(number) for number in range(1, 101)]

        assert hours.percentile(values, 50) == 50
        assert hours.percentile(values, 95) == 95
        assert hours.percentile([7.0], 95) == 7


class TestStatusPage:
    def test_admin_sees_it_and_nobody_else(
        self, client: Client, admin: User, champion: ModelVersion, beat: None
    ) -> None:
        assert client.get("/status/").status_code == 302
        client.force_login(User.objects.create_user("ada", role=Role.ADJUDICATOR))
        assert client.get("/status/").status_code == 403
        client.force_login(admin)
        presence.say_present(
            name="inference@host1",
            queues="default,inference",
            provider="CPUExecutionProvider",
            started_at=timezone.now(),
        )
        serve_hours(
            timezone.now().replace(minute=0, second=0, microsecond=0), happy=7, sad=1
        )

        page = client.get("/status/").content.decode()

        assert "all is well" in page
        assert "inference@host1" in page
        assert "beat@host1" in page
        assert "by 1 worker in sight" in page
        assert page.count('<svg class="plot"') == 4
        assert "Photos, 48 hours, at most 8" in page

    def test_worker_says_what_the_processes_that_it_forks_run_on(
        self, champion: ModelVersion, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not what this build of ONNX Runtime could: it falls back by itself."""
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
        classifier = serving.ModelServer().champion().classifier
        serving._runs_on[:] = bytes(len(serving._runs_on))
        server = serving.ModelServer()
        monkeypatch.setattr(serving, "EmotionClassifier", lambda *_, **__: classifier)
        assert serving.provider_name() == ""

        child = os.fork()
        if child == 0:
            try:
                server._load(champion)
            finally:
                os._exit(0)
        os.waitpid(child, 0)

        assert serving.provider_name() == CPU

    def test_who_was_not_seen_lately_is_not_there(self, db: None) -> None:
        now = timezone.now()
        Presence.objects.create(
            name="gone", queues="inference", started_at=now, seen_at=now
        )
        Presence.objects.update(seen_at=now - timedelta(days=2))

        assert presence.forget_absent() == 1


class TestAudit:
    def test_change_of_rights_is_written_down(self, admin: User) -> None:
        eve = User.objects.create_user("eve")

        change_person(person=eve, changed_by=admin, role=Role.ADJUDICATOR)
        invite_person(role=Role.ANNOTATOR, invited_by=admin, note="for Bo")

        invited, changed = audit.recent_entries()
        assert (changed.actor, changed.action, changed.subject) == (
            "max",
            "changed an account",
            "eve",
        )
        assert changed.details["before"]["role"] == "annotator"
        assert changed.details["after"]["role"] == "adjudicator"
        assert (invited.action, invited.subject) == ("invited", "for Bo")

    def test_act_that_failed_leaves_no_entry(self, admin: User) -> None:
        with pytest.raises(Exception, match="own account"):
            change_person(person=admin, changed_by=admin, is_active=False)

        assert not AuditEntry.objects.exists()

    def test_database_refuses_to_change_an_entry(self, admin: User) -> None:
        audit.record(actor=admin, action="did", subject="x")

        with pytest.raises(DatabaseError), transaction.atomic():
            AuditEntry.objects.update(actor="somebody else")

        assert AuditEntry.objects.get().actor == "max"

    def test_export_of_labels_is_written_down(
        self, client: Client, admin: User
    ) -> None:
        client.force_login(admin)

        assert client.get(reverse("curation:export", args=["csv"])).status_code == 200

        assert AuditEntry.objects.get().action == "exported labels"


class TestFiguresOfAWorker:
    def test_clients_that_say_nothing_keep_nobody_out(
        self,
        settings: LazySettings,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        settings.METRICS_TOKEN = TOKEN
        monkeypatch.setattr(presence._Quiet, "timeout", 1)
        server = presence.tell_figures(0)
        assert server is not None
        place = ("127.0.0.1", server.server_port)
        try:
            with socket.create_connection(place) as silent:
                scrape = http.client.HTTPConnection(*place, timeout=60)
                bearer = {"Authorization": f"Bearer {TOKEN}"}
                scrape.request("GET", "/metrics", headers=bearer)
                assert scrape.getresponse().status == 200
                scrape.close()
                # And they are not waited for without end.
                silent.settimeout(60)
                assert silent.recv(1) == b""
        finally:
            server.shutdown()
            server.server_close()
        assert capsys.readouterr().err == ""

    def test_port_that_is_taken_is_said_in_a_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with socket.create_server(("", 0)) as other:
            port = other.getsockname()[1]
            assert presence.tell_figures(port) is None

        [line] = caplog.messages
        assert line.startswith(f"no figures are told at port {port}")


class TestLogs:
    def record(self, **extra: object) -> dict[str, object]:
        record = logging.makeLogRecord(
            {"name": "webapp", "levelname": "INFO", "msg": "hello %s", "args": ("you",)}
            | extra
        )
        ContextFilter().filter(record)
        return json.loads(OneLineJson().format(record))

    def test_line_is_an_object_with_its_request_and_job(self) -> None:
        request, job = request_id.set("req-12345678"), job_id.set("job-1")
        try:
            line = self.record(status=200)
        finally:
            request_id.reset(request)
            job_id.reset(job)

        assert line["message"] == "hello you"
        assert line["request_id"] == "req-12345678"
        assert line["job_id"] == "job-1"
        assert line["status"] == 200
        at = datetime.fromisoformat(str(line["at"]))
        assert at.tzinfo is not None
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)

    def test_line_outside_of_both_says_neither(self) -> None:
        line = self.record()

        assert "request_id" not in line
        assert "job_id" not in line

    @pytest.mark.django_db
    def test_request_has_an_id_that_only_a_proxy_of_ours_may_choose(
        self, client: Client, settings: LazySettings
    ) -> None:
        given = {"X-Request-ID": "chosen-by-the-proxy"}
        assert (
            client.get("/livez", headers=given)["X-Request-ID"] != given["X-Request-ID"]
        )
        settings.NUM_PROXIES = 1
        assert (
            client.get("/livez", headers=given)["X-Request-ID"] == given["X-Request-ID"]
        )
        evil = {"X-Request-ID": 'x"} {"level": "forged'}
        assert "forged" not in client.get("/livez", headers=evil)["X-Request-ID"]

    @pytest.fixture(params=["line", "json"])
    def log(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[], str]:
        """What the site's own handler has written since, in either format."""
        (handler,) = (
            handler
            for handler in logging.getLogger().handlers
            if type(handler) is logging.StreamHandler
        )
        written = io.StringIO()
        monkeypatch.setattr(handler, "stream", written)
        if request.param == "json":
            monkeypatch.setattr(handler, "formatter", OneLineJson())
        monkeypatch.setattr(logging.getLogger("webapp.requests"), "level", logging.INFO)
        return written.getvalue

    @pytest.fixture
    def token(self) -> str:
        """Of a link that opens a photo."""
        return create_share_link(photo=PhotoFactory())[1]

    @pytest.mark.django_db
    def test_address_that_leads_nowhere_is_in_no_line(
        self, client: Client, log: Callable[[], str]
    ) -> None:
        client.get("/s/a-very-secret-token")
        client.get("/a-very-secret-token/")

        assert "Not Found: -" in log()
        assert "a-very-secret-token" not in log()

    @pytest.mark.django_db
    def test_invitation_that_is_refused_is_logged_by_its_route(
        self, client: Client, admin: User, log: Callable[[], str]
    ) -> None:
        secret = invite_person(role=Role.ANNOTATOR, invited_by=admin)[1]
        url = reverse("accounts:invitation", args=[secret])

        assert client.post(url, {"username": "eve"}).status_code == 400

        assert "Bad Request: accounts:invitation" in log()
        assert secret not in log()

    @pytest.mark.django_db
    def test_shared_photo_without_that_face_is_logged_by_its_route(
        self, client: Client, token: str, log: Callable[[], str]
    ) -> None:
        assert client.get(f"/s/{token}/heat/9").status_code == 404

        assert "Not Found: photos:shared-heat" in log()
        assert token not in log()

    @pytest.mark.django_db
    def test_form_that_is_refused_tells_neither_its_address_nor_where_it_stood(
        self, token: str, log: Callable[[], str]
    ) -> None:
        response = Client(enforce_csrf_checks=True).post(
            f"/s/{token}/",
            secure=True,
            headers={"Referer": f"https://mien.example/s/{token}/?again={token}"},
        )

        assert response.status_code == 403
        assert "https://mien.example does not match any trusted origins" in log()
        assert ": photos:shared" in log()
        assert token not in log()

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        "error", [OperationalError, IntegrityError, StorageAway, ZeroDivisionError]
    )
    def test_what_breaks_is_logged_by_its_route(
        self,
        token: str,
        log: Callable[[], str],
        error: type[Exception],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(**_: Any) -> None:
            raise error("broken")

        monkeypatch.setattr("webapp.photos.views.result.get_shared_photo", broken)

        Client(raise_request_exception=False).get(f"/s/{token}/")

        assert "photos:shared" in log()
        assert "broken" in log()
        assert token not in log()

    def test_gunicorns_lines_have_the_shape_of_all_others(
        self, settings: LazySettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings.LOG_FORMAT = "json"
        GunicornLogger(Config()).error("broken")

        assert json.loads(capsys.readouterr().err)["message"] == "broken"

    def test_gunicorn_does_not_quote_what_it_cannot_read(
        self, settings: LazySettings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        settings.LOG_FORMAT = "line"
        worker = SimpleNamespace(log=GunicornLogger(Config()), cfg=Config())
        request = SimpleNamespace(method="GET", uri="/s/secret-token/")
        for asked, error in (
            (None, InvalidRequestLine("GET /s/secret-token/ and more HTTP/1.1")),
            (None, InvalidHeader("REFERER : https://mien.example/s/secret-token/")),
            (request, RuntimeError("broken")),
        ):
            # It has logged by the time that it misses the rest of a request.
            with suppress(AttributeError):
                Worker.handle_error(worker, asked, None, ("192.0.2.1", 1), error)

        said = capsys.readouterr().err
        assert "ip=192.0.2.1: Invalid HTTP request line: ..." in said
        assert "ip=192.0.2.1: Invalid HTTP Header: ..." in said
        assert "Error handling request\n" in said
        assert "secret-token" not in said


@pytest.mark.django_db(transaction=True)
def test_alive_file_is_touched(
    tmp_path: Path, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ALIVE_FILE = str(tmp_path / "alive")
    monkeypatch.setattr(presence._stop, "wait", lambda seconds: True)

    presence._keep_saying("inference@here", "inference")

    assert (tmp_path / "alive").exists()
    assert Presence.objects.get().name == "inference@here"
