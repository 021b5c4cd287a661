"""Workers die by SIGKILL under load; no photo is lost, none is read twice."""

from __future__ import annotations

import json
import queue
import random
import signal
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import psutil

from tests.pictures import astronaut, encode
from tests.stack import Stack, own_services

UPLOADS = 500
KILLS = 40
UPLOADERS = 4
SEED = 20260101

COUNTS = """
import json
from django.db.models import Count
from webapp.photos.models import Face, Photo, Prediction
photos = Photo.objects.all()
print(json.dumps({
    "by_status": dict(photos.values_list("status").annotate(Count("pk"))),
    "by_attempts": dict(photos.values_list("attempts").annotate(Count("pk"))),
    "photos_with_one_face": photos.annotate(n=Count("faces")).filter(n=1).count(),
    "faces": Face.objects.count(),
    "predictions": Prediction.objects.count(),
}))
"""


class Load:
    """Uploads from several threads, never more of them than ``allowed``."""

    def __init__(self, stack: Stack, image: bytes) -> None:
        self._stack = stack
        self._image = image
        self._allowance: queue.Queue[bool] = queue.Queue()
        self.paths: list[str] = []
        self.errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._upload) for _ in range(UPLOADERS)
        ]
        for thread in self._threads:
            thread.start()

    def allow(self, count: int) -> None:
        for _ in range(count):
            self._allowance.put(True)

    def finish(self) -> None:
        """Wait until all that was allowed is done."""
        for _ in self._threads:
            self._allowance.put(False)
        for thread in self._threads:
            thread.join()

    def _upload(self) -> None:
        while self._allowance.get():
            try:
                self.paths.append(self._stack.upload(self._image))
            except (AssertionError, OSError, HTTPException) as error:
                self.errors.append(error)


def wait_until(find: Callable[[], psutil.Process | None]) -> psutil.Process:
    deadline = time.monotonic() + 60
    while True:
        process = find()
        if process is not None:
            return process
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_photo_is_lost_and_none_read_twice_when_workers_are_killed(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)
    image = encode(astronaut().resize((192, 192)))

    with own_services() as services, Stack(tmp_path / "home", services) as stack:

        def parent() -> psutil.Process | None:
            try:
                worker = stack.service("inference")
            except LookupError:
                return None
            return worker if worker.children() else None

        def child() -> psutil.Process | None:
            worker = parent()
            return chance.choice(worker.children()) if worker else None

        load = Load(stack, image)
        for number in range(KILLS):
            load.allow(UPLOADS // KILLS + (number < UPLOADS % KILLS))
            victim = wait_until(child if number % 2 else parent)
            time.sleep(chance.uniform(0, 1))
            victim.send_signal(signal.SIGKILL)
        load.finish()

        assert load.errors == []
        assert len(load.paths) == len(set(load.paths)) == UPLOADS
        for path in load.paths:
            photo = stack.result(path, seconds=120)
            assert photo["status"] == "done", photo
            assert len(photo["faces"]) == 1, photo
        counts = json.loads(stack.manage("shell", "--no-imports", "-c", COUNTS))

    assert counts["by_status"] == {"done": UPLOADS}, counts
    assert counts["photos_with_one_face"] == counts["faces"] == UPLOADS, counts
    assert counts["predictions"] == UPLOADS, counts
    print("attempts a photo:", counts["by_attempts"])
