"""The settings under test, in a home of their own that ends with the process.

Of the environment only the services are taken over: with ``MIEN_DATABASE_URL``,
``MIEN_BROKER_URL`` and ``MIEN_CACHE_URL`` the same tests run against those. The
variables go back into the environment, so that workers which a test starts see the
same.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

_SERVICES = {"MIEN_DATABASE_URL", "MIEN_BROKER_URL", "MIEN_CACHE_URL"}

for _name in [name for name in os.environ if name.startswith("MIEN_")]:
    if _name not in _SERVICES:
        del os.environ[_name]

# Several sessions at once (pytest-xdist): each has two numbers of Redis for itself,
# high above those of whole sites; pytest-django gives each a database of its own.
if _session := os.environ.get("PYTEST_XDIST_WORKER"):
    _number = 200 + 2 * int(_session.removeprefix("gw"))
    for _name in sorted(_SERVICES & set(os.environ) - {"MIEN_DATABASE_URL"}):
        _own = urlsplit(os.environ[_name])._replace(path=f"/{_number}")
        os.environ[_name] = _own.geturl()
        _number += 1

_home = tempfile.TemporaryDirectory(prefix="mien-test-")
os.environ["MIEN_HOME"] = _home.name
os.environ["MIEN_DEMO"] = "1"
(Path(_home.name) / "static").mkdir()

from webapp.config.settings import *  # noqa: E402, F403
from webapp.config.settings import STORAGES as _STORAGES  # noqa: E402

# No collectstatic before a test that renders a page.
STORAGES = {
    **_STORAGES,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# A slow hash protects people; nobody's password is in the tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Nobody's data folder takes part.
DATASET_DIR = ""
