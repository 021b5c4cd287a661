"""The site under a fault: what is done to it, and the account afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import redis

from tests.chaos.visitors import Promise, Visitors
from tests.stack import Stack
from webapp.config import broker

FINISHED_WITHIN_SECONDS: Final = 30.0
RECOVERY_P99_SECONDS: Final = 8.0

GIVEN: Final = {
    # The visitors here all come from one address.
    "MIEN_UPLOAD_RATE": "",
    "MIEN_FLAG_RATE": "",
}

ACCOUNT: Final = """
import json
from datetime import timedelta
from pathlib import Path
from django.core.files.storage import default_storage
from django.db.models import Count
from webapp.curation.models import Correction
from webapp.photos.models import Photo
from webapp.photos.services import erasure

erasure._ORPHAN_AFTER = timedelta(0)
swept = erasure.remove_orphan_files()
folders, _ = default_storage.listdir("photos")
files = {
    f"photos/{folder}/{name}"
    for folder in folders
    for name in default_storage.listdir(f"photos/{folder}")[1]
}
rows = {
    str(photo.pk): {
        "status": photo.status,
        "reason": photo.failure_reason,
        "attempts": photo.attempts,
        "done_at": photo.done_at.timestamp() if photo.done_at else None,
        "has_file": photo.file_name in files,
        "faces": photo.face_count,
        "results": photo.result_count,
    }
    for photo in Photo.objects.annotate(
        face_count=Count("faces", distinct=True),
        result_count=Count("faces__predictions", distinct=True),
    )
}
print(json.dumps({
    "rows": rows,
    "swept": swept,
    "orphans": sorted(files - set(Photo.objects.values_list("file_name", flat=True))),
    "words": [
        [str(word.pk), str(word.face.photo_id)]
        for word in Correction.objects.filter(retracted_at=None).select_related("face")
    ],
}))
"""


@dataclass
class Chaos:
    """A running site, its visitors, and what happened to it when.

    ``slowness`` is how many wanted each core before it began: what a quiet machine
    does in a second takes a busy one that long.
    """

    stack: Stack
    visitors: Visitors
    count: int
    kills: int
    chance: random.Random = field(default_factory=lambda: random.Random(20260101))
    faults: list[tuple[float, float]] = field(default_factory=list)
    poisoned: list[Promise] = field(default_factory=list)
    slowness: float = 1.0

    def shares(self, parts: int) -> Iterator[int]:
        """Let the visitors give ``count`` photos in so many helpings, each while what
        follows is done; the next one begins when they have given the last."""
        for number in range(parts):
            self.visitors.allow(self.count // parts + (number < self.count % parts))
            yield number
            self.visitors.wait_until_given()

    # --- What is done -------------------------------------------------------------

    def kill(self, service: str, *, child: bool = False) -> None:
        """SIGKILL a service's main process, or one of those it has started."""

        def victim() -> psutil.Process | None:
            try:
                process = self.stack.service(service)
                children = process.children()
            except (LookupError, psutil.NoSuchProcess):
                return None
            if not child:
                return process
            return self.chance.choice(children) if children else None

        process = self.wait_for(victim)
        time.sleep(self.chance.uniform(0, 1))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
        self._note()

    def empty_broker(self) -> None:
        """All messages are gone."""
        with self._redis() as client:
            client.flushdb()
        self._note()

    @contextmanager
    def stopped_readers(self) -> Iterator[None]:
        """Whoever reads photos does nothing, and does not die."""
        children = self.stack.service("inference").children()
        started_at = time.time()
        for process in children:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            self.faults.append((started_at, time.time()))

    def lock_database(self, seconds: float) -> None:
        """Nobody but us may write to it."""
        started_at = time.time()
        url = self.stack.environment.get("MIEN_DATABASE_URL", "")
        if url:
            with psycopg.connect(url) as connection:
                connection.execute("LOCK TABLE photos_photo IN ACCESS EXCLUSIVE MODE")
                time.sleep(seconds)
                connection.rollback()
        else:
            with self.stack.sole_writer():
                time.sleep(seconds)
        self.faults.append((started_at, time.time()))

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Photos find no room: on a small disk of their own where that may be
        mounted; else the web processes may write no file any more."""
        started_at = time.time()
        folder = self.stack.home / "media" / "photos"
        if folder.is_mount():
            with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
                while True:
                    filler.write(b"\0" * 4096)
                    filler.flush()
            try:
                yield
            finally:
                (folder / "filler").unlink()
                self.faults.append((started_at, time.time()))
            return
        processes = self.stack.service("web").children()
        for process in processes:
            _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
            process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            for process in processes:
                _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
            self.faults.append((started_at, time.time()))

    def poison(self) -> Promise:
        """A photo that takes hold of whoever reads it: a pipe that nobody writes to
        stands where its file was."""
        with self.stopped_readers():
            promise = self.visitors.upload()
            self.poisoned.append(promise)
            file_name, _, _ = self._row(promise)
            path = self.stack.home / "media" / file_name
            path.unlink()
            os.mkfifo(path)
        return promise

    def kill_whoever_reads(self, promise: Promise) -> int:
        """SIGKILL those that read a poisoned photo, for as long as anybody tries;
        how often that was."""
        killed = 0
        deadline = time.monotonic() + 120
        while True:
            assert time.monotonic() < deadline, "nobody gave up on it"
            _, status, attempts = self._row(promise)
            if status in ("done", "failed"):
                return killed
            if status == "processing" and attempts > killed:
                # All that read die with it. Whoever came back together with it has
                # been read by then: it alone is to die three times.
                time.sleep(1)
                for process in self.stack.service("inference").children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
                self._note()
                killed = attempts
            time.sleep(0.05)

    # --- The account --------------------------------------------------------------

    def settle(self) -> None:
        """Wait for the visitors, then at most 30 s for what they gave."""
        self.visitors.finish()
        deadline = time.monotonic() + FINISHED_WITHIN_SECONDS * self.slowness
        for promise in self.visitors.promises:
            while self.visitors.photo(promise.path)["status"] not in ("done", "failed"):
                assert time.monotonic() < deadline, f"{promise} is not finished"
                time.sleep(0.1)

    def check(self) -> str:
        """Every promise was kept; what is to be told of it. ``AssertionError``."""
        self.settle()
        visitors = self.visitors
        account = json.loads(
            self.stack.manage("shell", "--no-imports", "-c", ACCOUNT, **GIVEN)
        )
        rows: dict[str, dict[str, Any]] = account["rows"]
        ids = [promise.photo_id for promise in visitors.promises]
        assert visitors.errors == []
        assert len(set(ids)) == len(ids) == self.count + len(self.poisoned)
        assert set(rows) == set(ids), "acknowledged and stored are not the same"
        poisoned = {promise.photo_id for promise in self.poisoned}
        for photo_id, row in rows.items():
            if photo_id in poisoned:
                self._check_poisoned(photo_id, row)
                continue
            assert row["status"] == "done", (photo_id, row)
            assert row["faces"] == row["results"] == 1, (photo_id, row)
            assert row["has_file"], (photo_id, row)
        assert account["orphans"] == [], "files without a row"
        self._check_words(account["words"])
        return self._told(rows, account["swept"])

    def _check_poisoned(self, photo_id: str, row: dict[str, Any]) -> None:
        assert row["status"] == "failed", row
        assert row["attempts"] == 3, row
        shown = self.visitors.photo(f"/api/v1/photos/{photo_id}")
        assert len(shown["message"]) > 20, shown

    def _check_words(self, stored: list[list[str]]) -> None:
        promised = {(word.correction_id, word.photo_id) for word in self.visitors.words}
        assert sorted(map(list, promised)) == sorted(stored)
        assert len({photo for _, photo in stored}) == len(stored)

    def _told(self, rows: dict[str, dict[str, Any]], swept: int) -> str:
        waits = self.recoveries(rows)
        p99 = _quantile(waits, 0.99)
        attempts = max(row["attempts"] for row in rows.values())
        limit = RECOVERY_P99_SECONDS * self.slowness
        assert p99 <= limit, f"recovered in p99 {p99:.1f} s, not {limit:.1f} s"
        return (
            f"{len(rows)} photos, {len(self.visitors.words)} corrections, "
            f"{len(self.faults)} faults; caught by them {len(waits)}, recovered in "
            f"p50 {_quantile(waits, 0.5):.1f} s, p99 {p99:.1f} s; at most {attempts} "
            f"attempts; {swept} files without a row swept; answers "
            f"{dict(self.visitors.answers.most_common())}"
        )

    def recoveries(self, rows: dict[str, dict[str, Any]]) -> list[float]:
        """For each photo that was under way during a fault the seconds from the end
        of its last fault to its result."""
        waits = []
        poisoned = {promise.photo_id for promise in self.poisoned}
        for promise in self.visitors.promises:
            done_at = rows[promise.photo_id]["done_at"]
            ends = [
                max(end, promise.at)
                for start, end in self.faults
                if promise.at <= end and start <= done_at
            ]
            if ends and promise.photo_id not in poisoned:
                waits.append(max(done_at - max(ends), 0.0))
        return sorted(waits)

    # --- Small things ---------------------------------------------------------------

    def wait_for(
        self, find: Callable[[], psutil.Process | None], seconds: float = 60
    ) -> psutil.Process:
        deadline = time.monotonic() + seconds
        while True:
            found = find()
            if found is not None:
                return found
            assert time.monotonic() < deadline, "the site did not come back"
            time.sleep(0.02)

    def _note(self) -> None:
        now = time.time()
        self.faults.append((now, now))

    def _redis(self) -> redis.Redis:
        url = self.stack.environment.get("MIEN_BROKER_URL", "")
        if url:
            return redis.Redis.from_url(url)
        path = broker.socket_path(self.stack.home)
        return redis.Redis(unix_socket_path=str(path), db=0)

    def _row(self, promise: Promise) -> tuple[str, str, int]:
        """File name, status and attempts of a photo."""
        query = "SELECT file_name, status, attempts FROM photos_photo WHERE id = "
        url = self.stack.environment.get("MIEN_DATABASE_URL", "")
        if url:
            with psycopg.connect(url) as connection:
                row = connection.execute(query + "%s", (promise.photo_id,)).fetchone()
        else:
            path = self.stack.home / "mien.sqlite3"
            key = promise.photo_id.replace("-", "")
            with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
                row = database.execute(query + "?", (key,)).fetchone()
        assert row is not None
        return str(row[0]), str(row[1]), int(row[2])


@contextmanager
def small_disk(folder: Path, megabytes: int = 64) -> Iterator[None]:
    """A disk of that size at ``folder``, where we may mount one; else nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        yield
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[
        round(share * 100) - 1
    ]
