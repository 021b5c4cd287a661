"""What the site bears: half of it for a while, three times of it for a minute.

    make load
    make load ARGS='--minutes 10 --uploads 10000'

Starts the whole site as ``make run`` does, in an empty home, and

1. measures its capacity: photos a second, from upload to result, while a few clients
   send one after another;
2. sends half of that, evenly, for ``--minutes``: no answer may be a 5xx, and each
   photo is read;
3. sends three times of it for ``--overload-seconds``: each answer is 202, 429 or 503,
   the latter two with ``Retry-After``, and what was taken is read afterwards;
4. compares the memory of web and workers after ``--uploads`` photos with that after
   the first tenth of them: it may grow by 5 %.

Clients are threads that do nothing but wait; they share the machine with the site.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.latency import machine
from tests.pictures import as_form, astronaut, encode
from tests.stack import SERVICES, Stack

CLIENTS: Final = 6
OVERLOAD_CLIENTS: Final = 48
MEMORY_GROWTH: Final = 0.05


@dataclass
class Account:
    """Answers of one stage, by status, and seconds to the answer."""

    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0

    @property
    def taken(self) -> int:
        return self.statuses["202"]

    def told(self) -> str:
        p50, p99 = (quantile(self.seconds, share) for share in (0.5, 0.99))
        return (
            f"{dict(sorted(self.statuses.items()))}, "
            f"to the answer p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms"
        )


class Site:
    """The running site and what is asked of it."""

    def __init__(self, stack: Stack, image: bytes) -> None:
        self._stack = stack
        self._image = image
        self._cookie = f"mien_visitor={uuid.uuid4().hex}{'x' * 11}"
        self._lock = threading.Lock()
        self._owed = 0
        self._counted_at = 0.0

    def send(self, account: Account) -> str:
        """One upload; where its result will be, or nothing."""
        body, kind = as_form(self._image)
        headers = {"Content-Type": kind, "Cookie": self._cookie}
        started_at = time.perf_counter()
        status, retry_after, location = "none", "", ""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._stack.port, timeout=60
        )
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("POST", "/api/v1/photos", body, headers)
            response = connection.getresponse()
            response.read()
            status = str(response.status)
            retry_after = response.headers.get("Retry-After", "")
            location = response.headers.get("Location", "")
        with self._lock:
            account.statuses[status] += 1
            account.seconds.append(time.perf_counter() - started_at)
            if status in ("429", "503") and not retry_after:
                account.without_retry_after += 1
        return location

    def is_full(self, limit: int) -> bool:
        """Whether about as many are owed, to a twentieth of a second: counting them
        more often would take from the site what is to be measured."""
        with self._lock:
            if time.monotonic() - self._counted_at > 0.05:
                self._owed = self.owed()
                self._counted_at = time.monotonic()
            return self._owed >= limit

    def owed(self) -> int:
        """Photos that are not read yet."""
        path = self._stack.home / "mien.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM photos_photo "
                "WHERE status IN ('queued', 'processing')"
            ).fetchone()
        return int(count)

    def drain(self, limit_seconds: float) -> float:
        """Wait until nothing is owed; how long that took. ``TimeoutError``."""
        started_at = time.monotonic()
        while self.owed():
            if time.monotonic() - started_at > limit_seconds:
                raise TimeoutError(f"{self.owed()} photos are still owed")
            time.sleep(0.2)
        return time.monotonic() - started_at

    def memory(self) -> dict[str, float]:
        """Megabytes of its own that each service has, all its processes together."""
        return {
            name: sum(
                process.memory_full_info().uss for process in self._processes(name)
            )
            / 1024**2
            for name in ("web", "inference")
        }

    def processor_seconds(self) -> dict[str, float]:
        """What each service has had of the processors since it started."""
        return {
            name: sum(sum(process.cpu_times()[:2]) for process in self._processes(name))
            for name in SERVICES
        }

    def _processes(self, name: str) -> list[psutil.Process]:
        main = self._stack.service(name)
        return [main, *main.children()]


def measure_capacity(site: Site, seconds: float) -> float:
    """Photos a second that go through, with a few always under way."""
    account = Account()
    started_at = time.monotonic()

    def client() -> None:
        while time.monotonic() - started_at < seconds:
            # More would only wait in the queue, and be counted as read later.
            if site.is_full(4 * CLIENTS):
                time.sleep(0.05)
            else:
                site.send(account)

    _together(CLIENTS, client)
    site.drain(120)
    return account.taken / (time.monotonic() - started_at)


def send_evenly(site: Site, rate: float, seconds: float, clients: int) -> Account:
    """``rate`` uploads a second from so many clients, each at its own moment whether
    or not the last one was answered; a client that is late sends at once."""
    account = Account()
    started_at = time.monotonic()
    turn = iter(range(int(rate * seconds)))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(turn, None)
            if number is None:
                return
            pause = started_at + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            # What nobody could send in time is not sent later.
            if time.monotonic() - started_at > seconds + 5:
                return
            site.send(account)

    _together(clients, client)
    return account


def _together(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[
        round(share * 100) - 1
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capacity-seconds", type=float, default=30)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument("--uploads", type=int, default=2000)
    options = parser.parse_args()
    image = encode(astronaut().resize((256, 256)))
    print(f"{machine()}; load before: {os.getloadavg()[0]:.1f}", flush=True)
    broken = []
    with (
        tempfile.TemporaryDirectory(prefix="mien-load-") as folder,
        # What is measured is the machine, not the limit for one address.
        Stack(Path(folder) / "home", {"MIEN_UPLOAD_RATE": ""}) as stack,
    ):
        site = Site(stack, image)
        measure_capacity(site, 5)
        capacity = measure_capacity(site, options.capacity_seconds)
        print(f"capacity: {capacity:.1f} photos a second", flush=True)

        half = send_evenly(site, capacity / 2, 60 * options.minutes, CLIENTS)
        waited = site.drain(60)
        print(
            f"half of it, {options.minutes:g} min: {half.told()}; nothing owed after "
            f"{waited:.1f} s",
            flush=True,
        )
        if set(half.statuses) - {"202"}:
            broken.append("half of the capacity was not all taken")

        much = send_evenly(
            site, 3 * capacity, options.overload_seconds, OVERLOAD_CLIENTS
        )
        owed = site.owed()
        waited = site.drain(60 + 4 * options.overload_seconds)
        print(
            f"three times of it, {options.overload_seconds:g} s: {much.told()}; "
            f"{owed} owed at the end, read within {waited:.0f} s",
            flush=True,
        )
        if set(much.statuses) - {"202", "429", "503"} or much.without_retry_after:
            broken.append("under too much load an answer was not 202, 429 or 503")

        account = Account()
        _send_count(site, account, options.uploads // 10)
        site.drain(120)
        before = site.memory()
        _send_count(site, account, options.uploads - options.uploads // 10)
        site.drain(300)
        after = site.memory()
        for name, megabytes in after.items():
            growth = megabytes / before[name] - 1
            print(
                f"memory of {name}: {before[name]:.1f} MB after "
                f"{options.uploads // 10} uploads, {megabytes:.1f} MB after "
                f"{options.uploads} ({100 * growth:+.1f} %)",
                flush=True,
            )
            if growth > MEMORY_GROWTH:
                broken.append(f"the memory of {name} grew")
    for sentence in broken:
        print(f"BROKEN: {sentence}")
    return 1 if broken else 0


def _send_count(site: Site, account: Account, count: int) -> None:
    turn = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(turn, None)
            if number is None:
                return
            while site.is_full(4 * CLIENTS):
                time.sleep(0.05)
            site.send(account)

    _together(CLIENTS, client)


if __name__ == "__main__":
    sys.exit(main())
