from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from tests.models import write_tiny_model
from tests.stack import ROOT
from webapp.accounts.models import User
from webapp.registry.models import ModelVersion
from webapp.registry.selectors import get_champion

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_static(settings: LazySettings, tmp_path: Path) -> Path:
    """A source of static files beside those of the packages."""
    folder = tmp_path / "own"
    folder.mkdir()
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STATICFILES_DIRS = [folder]
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_tiny_model(tmp_path, "tiny-1")
    monkeypatch.setattr("webapp.registry.services.SHIPPED_MODEL", path)
    return path


def test_again_changes_nothing(
    shipped: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("bootstrap")
    first = capsys.readouterr()
    call_command("bootstrap")
    second = capsys.readouterr()

    assert "Collecting static files" in first.err
    assert second.err == ""
    assert first.out == second.out
    assert ModelVersion.objects.count() == 1
    assert get_champion() is not None
    assert Path(settings.STATIC_ROOT, "staticfiles.json").exists() is False
    assert Path(settings.STATIC_ROOT, "admin/css/base.css").exists()


def test_changed_static_file_is_collected_again(
    shipped: Path,
    settings: LazySettings,
    own_static: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call_command("bootstrap")
    (own_static / "new.css").write_text("p {}")
    capsys.readouterr()

    call_command("bootstrap")

    assert "Collecting static files" in capsys.readouterr().err
    assert Path(settings.STATIC_ROOT, "new.css").exists()


def test_public_site_gets_no_people_with_known_passwords(
    shipped: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.DEMO = False

    call_command("bootstrap")

    assert capsys.readouterr().out == ""
    assert not User.objects.exists()


def test_public_site_on_a_demos_home_is_not_opened_by_known_passwords(
    shipped: Path, settings: LazySettings, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("bootstrap")
    settings.DEMO = False
    capsys.readouterr()

    call_command("bootstrap")

    said = capsys.readouterr()
    assert said.out == ""
    assert "do not open this site any more: ada, max." in said.err
    assert "manage.py changepassword" in said.err
    assert not any(person.has_usable_password() for person in User.objects.all())


def test_broken_model_is_said_in_a_sentence(shipped: Path) -> None:
    shipped.write_bytes(b"no model")

    with pytest.raises(CommandError, match="model that ships is broken"):
        call_command("bootstrap")


def test_folder_that_cannot_be_written_is_said_in_a_sentence(
    shipped: Path, settings: LazySettings
) -> None:
    settings.STATIC_ROOT.write_text("a file where the folder belongs")

    with pytest.raises(CommandError, match="Files cannot be kept"):
        call_command("bootstrap")


def test_store_that_takes_no_model_is_said_in_a_sentence(
    shipped: Path, settings: LazySettings
) -> None:
    settings.MEDIA_ROOT.mkdir()
    (settings.MEDIA_ROOT / "models").write_text("a file where the folder belongs")

    with pytest.raises(CommandError, match="Files cannot be kept"):
        call_command("bootstrap")


def test_database_that_refuses_the_model_is_said_in_a_sentence(shipped: Path) -> None:
    def refuse(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "registry'):
            raise OperationalError("no space is left")
        return execute(sql, *rest)

    with (
        connection.execute_wrapper(refuse),
        pytest.raises(CommandError, match="database cannot be used: no space is left"),
    ):
        call_command("bootstrap")


def test_file_that_is_no_database_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mien.sqlite3").write_bytes(b"no database" * 1000)
    environment = {
        **{k: v for k, v in os.environ.items() if "MIEN_" not in k},
        "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
        "MIEN_HOME": str(tmp_path),
        "MIEN_DEMO": "1",
    }
    result = subprocess.run(
        [sys.executable, "manage.py", "bootstrap"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert "The database cannot be used: file is not a database" in result.stderr
    assert "Traceback" not in result.stderr
