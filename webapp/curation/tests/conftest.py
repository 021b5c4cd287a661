from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client

from webapp.accounts.models import Role, User
from webapp.curation.tests.factories import PersonFactory


@pytest.fixture(autouse=True)
def media(settings: LazySettings, tmp_path: Path) -> Path:
    """Files of people in a folder of the test's own."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT


def logged_in(role: Role) -> tuple[Client, User]:
    person = PersonFactory(
        role=role, is_staff=role == Role.ADMIN, is_superuser=role == Role.ADMIN
    )
    client = Client()
    client.force_login(person)
    return client, person


@pytest.fixture
def annotator(db: None) -> tuple[Client, User]:
    return logged_in(Role.ANNOTATOR)


@pytest.fixture
def judge(db: None) -> tuple[Client, User]:
    return logged_in(Role.ADJUDICATOR)


@pytest.fixture
def admin(db: None) -> tuple[Client, User]:
    return logged_in(Role.ADMIN)
