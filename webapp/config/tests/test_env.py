"""What the environment may say, and what is answered where it says nonsense."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.stack import ROOT
from webapp.config import env, serve

PRODUCTION = {
    "MIEN_SECRET_KEY": "k" * 64,
    "MIEN_ALLOWED_HOSTS": "mien.example",
    "MIEN_DATABASE_URL": "postgres://mien@db/mien",
    "MIEN_BROKER_URL": "redis://broker:6379/0",
    "MIEN_STORAGE_URL": "s3://key:secret@store:9000/photos?tls=0",
}


def settings_say(home: Path, expression: str, **given: str) -> str:
    """An expression over the settings of a fresh process, or its last error line."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MIEN_")}
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from webapp.config import settings as s\n{expression}",
        ],
        cwd=ROOT,
        env={**kept, "MIEN_HOME": str(home), **given},
        capture_output=True,
        text=True,
    )
    return (result.stdout or result.stderr).strip().splitlines()[-1]


def test_secret_may_stand_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("from the file\n")
    monkeypatch.delenv("MIEN_X", raising=False)
    monkeypatch.setenv("MIEN_X_FILE", str(tmp_path / "key"))

    assert env.text("MIEN_X") == "from the file"
    monkeypatch.setenv("MIEN_X_FILE", str(tmp_path / "gone"))
    with pytest.raises(ImproperlyConfigured, match="cannot be read"):
        env.text("MIEN_X")


def test_password_from_a_file_of_its_own_goes_into_the_url() -> None:
    assert env.with_password("redis://broker:6379/0", "a/b@c") == (
        "redis://:a%2Fb%40c@broker:6379/0"
    )
    database = env.database(env.with_password("postgres://mien@db/mien", "a/b@c"))
    assert (database["USER"], database["PASSWORD"]) == ("mien", "a/b@c")
    assert env.with_password("sqlite:////x", "secret") == "sqlite:////x"


def test_store_is_named_by_one_url() -> None:
    options = env.storage("s3://key:s%2Fcret@store:9000/photos?tls=0")["OPTIONS"]

    assert options == {
        "bucket_name": "photos",
        "access_key": "key",
        "secret_key": "s/cret",
        "region_name": "us-east-1",
        "endpoint_url": "http://store:9000",
    }
    assert "endpoint_url" not in env.storage("s3:///photos")["OPTIONS"]


@pytest.mark.parametrize("url", ["http://x/y", "s3://key@host", "s3://host/a/b"])
def test_store_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="MIEN_STORAGE_URL must be"):
        env.storage(url)


def test_cache_stands_beside_the_broker() -> None:
    assert env.cache_beside("redis://:p@b:6379/0") == "redis://:p@b:6379/1"
    assert env.cache_beside("redis+socket:///x/s") == "unix:///x/s?db=1"
    with pytest.raises(ImproperlyConfigured, match="MIEN_BROKER_URL must be"):
        env.cache_beside("amqp://b")


@pytest.mark.parametrize(
    "held", [b"", b" \n", b"\xff\xfe", b"one\ntwo"], ids=["none", "blank", "16", "two"]
)
def test_file_of_a_secret_that_holds_none_is_named(
    held: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(held)
    monkeypatch.delenv("MIEN_X", raising=False)
    monkeypatch.setenv("MIEN_X_FILE", str(tmp_path / "key"))

    with pytest.raises(ImproperlyConfigured, match="MIEN_X"):
        env.text("MIEN_X", "")


def test_what_an_editor_adds_is_no_part_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsecret\r\n")
    monkeypatch.delenv("MIEN_X", raising=False)
    monkeypatch.setenv("MIEN_X_FILE", str(tmp_path / "key"))

    assert env.text("MIEN_X") == "secret"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIEN_SECRET_KEY", " " * 64),
        ("MIEN_ALLOWED_HOSTS", "https://mien.example"),
        ("MIEN_DATABASE_URL", "postgres://mien@db:port/mien"),
        ("MIEN_DATABASE_URL", "postgres://mien:a#b@db/mien"),
        ("MIEN_DATABASE_URL", "sqlite://"),
        ("MIEN_DATABASE_URL", "postgres://mien@db/"),
        ("MIEN_TRUSTED_ORIGINS", "mien.example"),
        ("MIEN_TRUSTED_ORIGINS", "https://mien.example/"),
        ("MIEN_BROKER_URL", "redis://broker:99999/0"),
        ("MIEN_BROKER_URL", "redis://"),
        ("MIEN_BROKER_URL", "redis://[::1/0"),
        ("MIEN_CACHE_URL", "memcached://cache"),
        ("MIEN_CACHE_URL", "redis://cache/one"),
        ("MIEN_STORAGE_URL", "s3://key:secret@store:http/photos"),
        ("MIEN_NUM_PROXIES", "9" * 5000),
        ("MIEN_METRICS_PORT", "70000"),
        ("MIEN_PHOTO_RETENTION_SECONDS", "9" * 14),
        ("MIEN_PHOTO_RETENTION_SECONDS", "3599"),
        ("MIEN_CURATION_SAMPLE_PERCENT", "101"),
        ("MIEN_CURATION_ORDER", "oldest"),
        ("MIEN_UPLOAD_RATE", "ten a day"),
        ("MIEN_LIVE_RATE", "0/minute"),
        ("MIEN_FLAG_RATE", "5/minute;"),
        ("MIEN_LOG_LEVEL", "loud"),
    ],
)
def test_wrong_variable_is_named_and_its_value_is_no_traceback(
    name: str, value: str, tmp_path: Path
) -> None:
    said = settings_say(tmp_path, "", **{**PRODUCTION, name: value})

    assert said.startswith(f"django.core.exceptions.ImproperlyConfigured: {name} ")
    assert "a#b" not in said


@pytest.mark.parametrize(
    "words", [("manage.py", "check"), ("-m", "webapp.config.serve", "beat")]
)
def test_wrong_variable_ends_in_one_sentence(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if "MIEN_" not in k},
            **PRODUCTION,
            "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
            "MIEN_HOME": str(tmp_path),
            "MIEN_DEBUG": "maybe",
        },
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert result.stderr == "mien: MIEN_DEBUG must be 1 or 0, not 'maybe'.\n"


def test_port_that_is_none_ends_in_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIEN_BIND", "127.0.0.1:99999")

    assert serve.main(["web"]) == 1

    said = capsys.readouterr().err
    assert said.startswith("mien: MIEN_BIND must end in a port")


def test_home_may_have_any_name(tmp_path: Path) -> None:
    home = tmp_path / "50%20 #1 ?ü"
    said = settings_say(home, "print(s.DATABASES['default']['NAME'])", MIEN_DEMO="1")
    assert said.removeprefix("/") == f"{home}/mien.sqlite3"


def test_tilde_is_the_home_of_the_user_without_a_shell(tmp_path: Path) -> None:
    said = settings_say(
        Path("~/mien"), "print(s.MIEN_HOME)", **PRODUCTION, HOME=str(tmp_path)
    )
    assert said == str(tmp_path / "mien")
    said = settings_say(Path("~nobody-of-that-name"), "", **PRODUCTION)
    assert "MIEN_HOME cannot be used" in said


def test_every_variable_is_described() -> None:
    read = {
        name
        for path in ("settings", "serve", "embedded")
        for name in re.findall(
            r'"((?:MIEN|FER)_[A-Z_]+[A-Z])"',
            (ROOT / f"webapp/config/{path}.py").read_text(encoding="utf-8"),
        )
        if not name.endswith(("_URL_FILE", "_KEY_FILE"))
    }
    rows = re.findall(
        r"^\| (`.*?) \|",
        (ROOT / "docs" / "production.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )

    assert len(read) > 30
    assert read <= set(re.findall(r"`(\w+)`", " ".join(rows)))


class TestProduction:
    def test_three_addresses_and_a_secret_are_enough(self, tmp_path: Path) -> None:
        said = settings_say(
            tmp_path,
            "print(s.CACHE_URL, s.DATABASES['default']['HOST'], s.SECURE,"
            " s.STORAGES['default']['BACKEND'])",
            **PRODUCTION,
        )

        assert said == ("redis://broker:6379/1 db True webapp.core.s3.DurableS3Storage")

    def test_there_is_no_default_secret(self, tmp_path: Path) -> None:
        without = {k: v for k, v in PRODUCTION.items() if k != "MIEN_SECRET_KEY"}

        assert "Set MIEN_SECRET_KEY" in settings_say(tmp_path, "", **without)
        assert "must have 50 characters" in settings_say(
            tmp_path, "", **without, MIEN_SECRET_KEY="short"
        )
        assert not (tmp_path / "secret_key").exists()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("MIEN_HTTPS", "1"),
            ("MIEN_BEHIND_TLS_PROXY", "1"),
            ("MIEN_NUM_PROXIES", "1"),
            *[
                ("MIEN_ALLOWED_HOSTS", host)
                for host in (
                    "mien.example",
                    "*",
                    ".example",
                    "192.0.2.7",
                    "localhost.x",
                )
            ],
        ],
    )
    def test_demo_with_its_known_passwords_is_never_served(
        self, name: str, value: str, tmp_path: Path
    ) -> None:
        own = {"MIEN_ALLOWED_HOSTS": "127.0.0.1,localhost,[::1],mien.localhost"}

        assert settings_say(tmp_path, "print(s.DEMO)", **own, MIEN_DEMO="1") == "True"
        said = settings_say(tmp_path, "", **own | {name: value}, MIEN_DEMO="1")
        assert "known passwords" in said

    def test_cookies_and_transport_are_secure(self, tmp_path: Path) -> None:
        said = settings_say(
            tmp_path,
            "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE,"
            " s.SESSION_COOKIE_HTTPONLY, s.SECURE_SSL_REDIRECT,"
            " s.SECURE_HSTS_SECONDS >= 31536000, s.DEBUG, s.DEMO)",
            **PRODUCTION,
        )

        assert said == "True True True True True False False"
