"""The whole site as ``make run`` starts it, on a free port and a home of its own."""

from __future__ import annotations

import functools
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psutil
import psycopg
import redis
from psycopg import sql

from tests.pictures import as_form
from webapp.config.processes import ProcessGroup

ROOT = Path(__file__).resolve().parent.parent
MAKE_RUN = (sys.executable, "-m", "webapp.config.embedded")
# For what must come, however busy the machine is.
START_LIMIT_SECONDS = 300.0
STOP_LIMIT_SECONDS = 120.0

SERVICES = {
    "broker": "valkey",
    "web": "gunicorn",
    "inference": "inference@",
    "training": "training@",
    "beat": " beat ",
}
"""What stands in the command line of each."""

# Of the 256 numbers of the tests' Redis, each session that shares the cores has 40;
# 0 and 1 are those of a session alone.
_session = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_redis_numbers = itertools.count(2 + 40 * _session)


def environment(home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """That of a new shell: no ``MIEN_`` variable of the test session's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MIEN_") and name != "DJANGO_SETTINGS_MODULE"
    }
    return {**kept, "MIEN_HOME": str(home), "PORT": "0", **given}


def processes_of(home: Path) -> list[psutil.Process]:
    """Everything that runs on this home, whoever started it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MIEN_HOME") != str(home):
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@contextmanager
def own_services() -> Iterator[dict[str, str]]:
    """The environment of a site with a database and a broker of its own.

    Empty in the embedded profile, where a home of its own is enough. Otherwise an
    empty database on the session's server, and two more numbers of its Redis.
    """
    if "MIEN_BROKER_URL" not in os.environ:
        yield {}
        return
    redis_server = urlsplit(os.environ["MIEN_BROKER_URL"])
    broker, cache = (
        redis_server._replace(path=f"/{next(_redis_numbers)}").geturl()
        for _ in range(2)
    )
    for url in (broker, cache):
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    server = urlsplit(os.environ["MIEN_DATABASE_URL"])
    name = f"mien_site_{uuid.uuid4().hex[:8]}"
    identifier = sql.Identifier(name)
    with psycopg.connect(server.geturl(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
    yield {
        "MIEN_DATABASE_URL": server._replace(path=f"/{name}").geturl(),
        "MIEN_BROKER_URL": broker,
        "MIEN_CACHE_URL": cache,
    }
    with psycopg.connect(server.geturl(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@functools.cache
def _group() -> ProcessGroup:
    """Sites end with the tests, also where those are killed."""
    return ProcessGroup()


@functools.cache
def _prepared() -> tempfile.TemporaryDirectory[str]:
    """A home as the first start leaves it, made once in a session: to migrate, to
    compress and to hash passwords takes longer than all else in a start."""
    folder = tempfile.TemporaryDirectory(prefix="mien-prepared-")
    subprocess.run(
        [sys.executable, "manage.py", "bootstrap"],
        cwd=ROOT,
        env=environment(Path(folder.name), {"MIEN_DEMO": "1"}),
        check=True,
        capture_output=True,
    )
    return folder


def prepare(home: Path) -> Path:
    """Lay out a home in which nothing happened yet, for a site that starts quickly."""
    # Each site has a key of its own.
    without_key = shutil.ignore_patterns("secret_key")
    shutil.copytree(_prepared().name, home, ignore=without_key, dirs_exist_ok=True)
    return home


class Stack:
    """Use as a context manager: up inside, gone afterwards."""

    def __init__(
        self,
        home: Path,
        given: Mapping[str, str] | None = None,
        command: tuple[str, ...] = MAKE_RUN,
    ) -> None:
        self.home = home
        self.environment = environment(home, given or {})
        self.output_path = home.parent / f"{home.name}.output"
        self._command = command
        self.port = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=_group().id,
            )
        try:
            self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)/")[1])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._command != MAKE_RUN:
            self.stop()
            return
        # A second Ctrl-C ends everything at once; nobody is to wait for workers.
        deadline = time.monotonic() + STOP_LIMIT_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        self.stop()

    @contextmanager
    def sole_writer(self) -> Iterator[None]:
        """Nobody but us writes to its SQLite, or is in the midst of it."""
        path = self.home / "mien.sqlite3"
        with closing(sqlite3.connect(path, timeout=120)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    @property
    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def wait_for(
        self, pattern: str, seconds: float = START_LIMIT_SECONDS
    ) -> re.Match[str]:
        """Wait until the output matches."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.output)
            if found:
                return found
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"no {pattern!r} in the output:\n{self.output}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask the supervisor to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not stop:\n{self.output}") from None

    def service(self, name: str) -> psutil.Process:
        """The main process of a service. Raises ``LookupError`` while it is down."""
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if SERVICES[name] in " ".join(child.cmdline()):
                    return child
        raise LookupError(f"{name} does not run")

    def running(self) -> set[str]:
        """The services that are up."""
        up = set()
        for name in SERVICES:
            with suppress(LookupError):
                self.service(name)
                up.add(name)
        return up

    def manage(self, *words: str, **given: str) -> str:
        """What ``manage.py`` prints beside the running site."""
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env={**self.environment, "MIEN_DEMO": "1", **given},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        own: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of one request, which came as ``own`` or else
        ``headers`` say."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            headers = dict(self.headers if own is None else own)
            if kind:
                headers["Content-Type"] = kind
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.headers.get_content_type() == "application/json":
            return response.status, json.loads(data)
        return response.status, data.decode()

    def upload(self, image: bytes, own: Mapping[str, str] | None = None) -> str:
        """Give a photo; the path of its result."""
        body, kind = as_form(image)
        status, photo = self.request("POST", "/api/v1/photos", body, kind, own)
        assert status == 202, photo
        return f"/api/v1/photos/{photo['id']}?secret={photo['secret']}"

    def result(self, path: str, seconds: float = 120.0) -> dict[str, Any]:
        """The photo at ``path`` once nothing more will happen to it."""
        deadline = time.monotonic() + seconds
        while True:
            status, photo = self.request("GET", path)
            assert status == 200, photo
            if photo["status"] in ("done", "failed"):
                return dict(photo)
            assert time.monotonic() < deadline, photo
            time.sleep(0.01)


@contextmanager
def own_site(**given: str) -> Iterator[Stack]:
    """A site with services and a home of its own, both gone at the end."""
    with (
        tempfile.TemporaryDirectory(
            prefix="mien-site-", ignore_cleanup_errors=True
        ) as folder,
        own_services() as services,
        Stack(prepare(Path(folder) / "home"), {**services, **given}) as running,
    ):
        yield running
