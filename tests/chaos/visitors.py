"""Visitors who write down what they were promised, and try again until they are."""

from __future__ import annotations

import collections
import http.client
import json
import queue
import secrets
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

UPLOADERS: Final = 4
UNREAD_AT_MOST: Final = 48
"""Else what is measured after a fault is how long the line was before it."""

_PATIENCE_SECONDS: Final = 150.0
_GIVING_SECONDS: Final = 1200.0
_ANSWER_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Promise:
    """A photo that was acknowledged, and when."""

    photo_id: str
    path: str
    at: float


@dataclass(frozen=True)
class Word:
    """A correction that was acknowledged."""

    photo_id: str
    correction_id: str


class Visitors:
    """Upload from several threads, never more than ``allow`` allows and not while
    many are unread, and correct what was read. What got no answer is sent again with
    the same key."""

    def __init__(self, port: int, image: bytes) -> None:
        self._port = port
        self._image = image
        self._cookie = f"mien_visitor={secrets.token_urlsafe(32)}"
        self._allowance: queue.Queue[bool] = queue.Queue()
        self._unread = threading.Semaphore(UNREAD_AT_MOST)
        self._to_correct: queue.Queue[Promise | None] = queue.Queue()
        self.promises: list[Promise] = []
        self.words: list[Word] = []
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self._stopped = False
        self._uploaders = [
            threading.Thread(target=self._upload_all) for _ in range(UPLOADERS)
        ]
        self._corrector = threading.Thread(target=self._correct_all)
        for thread in (*self._uploaders, self._corrector):
            thread.start()

    def allow(self, count: int) -> None:
        for _ in range(count):
            self._allowance.put(True)

    def wait_until_given(self) -> None:
        """Until all that was allowed is given, or about to be."""
        deadline = time.monotonic() + _GIVING_SECONDS
        while not self._allowance.empty():
            assert time.monotonic() < deadline, "the visitors are stuck"
            time.sleep(0.02)

    def upload(self) -> Promise:
        """One more, now, that nobody corrects."""
        return self._upload(str(uuid.uuid4()))

    def finish(self) -> None:
        """Wait until all that was allowed is done."""
        for _ in self._uploaders:
            self._allowance.put(False)
        for thread in self._uploaders:
            thread.join()
        self._to_correct.put(None)
        self._corrector.join()

    def stop(self) -> None:
        """Give up: nobody tries again."""
        self._stopped = True
        self.finish()

    def photo(self, path: str) -> dict[str, Any]:
        """The photo as a visitor sees it."""
        return dict(self._insist("GET", path)[1])

    def _upload_all(self) -> None:
        while self._allowance.get():
            self._unread.acquire()
            try:
                promise = self._upload(str(uuid.uuid4()))
            except AssertionError as error:
                self.errors.append(str(error))
                self._unread.release()
                continue
            self._to_correct.put(promise)

    def _upload(self, key: str) -> Promise:
        boundary = uuid.uuid4().hex
        head = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        status, photo = self._insist(
            "POST",
            "/api/v1/photos",
            head.encode() + self._image + f"\r\n--{boundary}--\r\n".encode(),
            {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Idempotency-Key": key,
            },
        )
        assert status == 202, photo
        path = f"/api/v1/photos/{photo['id']}"
        promise = Promise(photo["id"], path, time.time())
        self.promises.append(promise)
        return promise

    def _correct_all(self) -> None:
        number = 0
        while (promise := self._to_correct.get()) is not None:
            number += 1
            try:
                self._correct(promise, twice=number % 3 == 0)
            except AssertionError as error:
                self.errors.append(str(error))
            finally:
                self._unread.release()

    def _correct(self, promise: Promise, *, twice: bool) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (photo := self.photo(promise.path))["status"] != "done":
            if photo["status"] == "failed":
                return
            assert time.monotonic() < deadline, f"not done in time: {photo}"
            time.sleep(0.03)
        for _ in range(2 if twice else 1):
            status, word = self._insist(
                "POST",
                f"{promise.path}/faces/1/flag",
                json.dumps({"verdict": "sad"}).encode(),
                {"Content-Type": "application/json"},
            )
            assert status == 201, word
            self.words.append(Word(promise.photo_id, word["id"]))

    def _insist(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """The answer, once there is one other than "later"."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            assert not self._stopped, "stopped"
            assert time.monotonic() < deadline, f"{method} {path}: no answer in time"
            try:
                status, retry_after, data = self._ask(method, path, body, headers or {})
            except (OSError, http.client.HTTPException) as error:
                self.answers[type(error).__name__] += 1
                time.sleep(0.1)
                continue
            self.answers[str(status)] += 1
            if status not in (429, 503):
                assert status < 500, f"{method} {path}: {status} {data!r}"
                return status, data
            assert retry_after, f"{status} without Retry-After: {data!r}"
            time.sleep(0.3)

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=_ANSWER_SECONDS
        )
        try:
            connection.request(method, path, body, {"Cookie": self._cookie, **headers})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.headers.get_content_type() == "application/json":
            return (
                response.status,
                response.headers.get("Retry-After", ""),
                json.loads(data),
            )
        return response.status, response.headers.get("Retry-After", ""), data
