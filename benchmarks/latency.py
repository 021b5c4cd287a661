"""How long a photo takes, and what of that web, database and queue cost.

    make bench
    make bench ARGS=--write

Starts the whole site as ``make run`` does, in an empty home, and sends it photos:
one at a time, then eight at once. In the same run, turn by turn, the same decoding,
detection and classification run in one process that does nothing else: what is over
that is the price of the site. A client asks for its result every 10 ms (one photo) or
50 ms (eight), as often as that costs the site little; the last wait is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from PIL import Image

from benchmarks.report import DOCS, model_line, put
from ml.detection import FaceDetector
from ml.images import decode_image
from ml.inference import EmotionClassifier
from ml.preprocessing import crop_faces
from tests.pictures import as_form, astronaut, encode
from tests.stack import Stack

STORED_MAX_SIDE_PX: Final = 1920
"""As in ``webapp.photos.services.intake``, which needs a configured Django."""

REPORT: Final = DOCS / "performance.md"
AT_ONCE: Final = 8
TIMEOUT_SECONDS: Final = 60.0


@dataclass
class Timings:
    """Seconds, one a photo."""

    accepted: list[float] = field(default_factory=list)
    result: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


class Client:
    """A visitor, with one connection a photo."""

    def __init__(self, port: int, pause_seconds: float) -> None:
        self._port = port
        self._pause_seconds = pause_seconds

    def photo(self, image: bytes) -> tuple[float, float]:
        """Seconds from the first byte sent to the 202, and to the result."""
        body, kind = as_form(image)
        headers = {"Content-Type": kind}
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._port, timeout=TIMEOUT_SECONDS
        )
        with contextlib.closing(connection):
            started_at = time.perf_counter()
            connection.request("POST", "/api/v1/photos", body, headers)
            location, photo = _receive(connection, 202)
            accepted = time.perf_counter() - started_at
            while photo["status"] not in ("done", "failed"):
                time.sleep(self._pause_seconds)
                connection.request("GET", location)
                _, photo = _receive(connection, 200)
            seconds = time.perf_counter() - started_at
        if photo["status"] != "done" or len(photo["faces"]) != 1:
            raise RuntimeError(f"not one face: {photo}")
        return accepted, seconds


def _receive(
    connection: http.client.HTTPConnection, expected: int
) -> tuple[str, dict[str, Any]]:
    """``Location`` and JSON of the answer."""
    response = connection.getresponse()
    data = response.read()
    if response.status != expected:
        raise RuntimeError(f"{response.status}: {data.decode(errors='replace')}")
    return response.headers.get("Location", ""), json.loads(data)


class Networks:
    """The same work without a site around it."""

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._classifier = EmotionClassifier.load()
        self.model = self._classifier.manifest

    def photo(self, image: bytes) -> float:
        """Seconds from bytes to probabilities."""
        started_at = time.perf_counter()
        probabilities = self.probabilities(image)
        seconds = time.perf_counter() - started_at
        if len(probabilities) != 1:
            raise RuntimeError(f"{len(probabilities)} faces instead of one")
        return seconds

    def probabilities(self, image: bytes) -> list[tuple[float, ...]]:
        """Four of each face."""
        pixels = decode_image(image, STORED_MAX_SIDE_PX).pixels
        faces = self._detector.detect(pixels).faces
        crops = crop_faces(pixels, faces, self._classifier.manifest.input)
        return [
            face.probabilities for face in self._classifier.read_crops(crops).scores
        ]


def measure_single(
    stack: Stack, networks: Networks, image: bytes, rounds: int
) -> Timings:
    """One photo at a time; site and networks take turns."""
    timings = Timings()
    client = Client(stack.port, 0.01)
    for _ in range(rounds):
        timings.alone.append(networks.photo(image))
        accepted, seconds = client.photo(image)
        timings.accepted.append(accepted)
        timings.result.append(seconds)
    return timings


def measure_burst(
    stack: Stack, networks: Networks, image: bytes, rounds: int
) -> Timings:
    """Eight photos at the same moment, each timed from that moment; the networks
    alone get as many threads as there are cores."""
    timings = Timings()
    clients = [Client(stack.port, 0.05) for _ in range(AT_ONCE)]
    with (
        ThreadPoolExecutor(AT_ONCE) as visitors,
        ThreadPoolExecutor(cores()) as threads,
    ):
        for _ in range(rounds):
            timings.alone += _burst(threads, networks.photo, [image] * AT_ONCE)
            pairs = visitors.map(lambda client: client.photo(image), clients)
            for accepted, seconds in pairs:
                timings.accepted.append(accepted)
                timings.result.append(seconds)
    return timings


def _burst(
    threads: ThreadPoolExecutor, work: Callable[[bytes], float], images: Iterable[bytes]
) -> list[float]:
    """Seconds from now to the end of each, its wait in the line included."""
    started_at = time.perf_counter()

    def timed(image: bytes) -> float:
        work(image)
        return time.perf_counter() - started_at

    return list(threads.map(timed, images))


def table(rows: dict[tuple[str, int], Timings]) -> str:
    """Milliseconds, as Markdown."""
    lines = [
        "| photo | at once | to 202: p50 | p95 | to result: p50 | p95 "
        "| networks alone: p50 | p95 | difference of p50 | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (name, at_once), timings in rows.items():
        cells = [
            f"{quantile(values, share):.0f}"
            for values in (timings.accepted, timings.result, timings.alone)
            for share in (0.5, 0.95)
        ]
        result, alone = quantile(timings.result, 0.5), quantile(timings.alone, 0.5)
        lines.append(
            f"| {name} | {at_once} | {' | '.join(cells)} "
            f"| {result - alone:.0f} | {result / alone:.1f} |"
        )
    return "\n".join(lines)


def quantile(seconds: list[float], share: float) -> float:
    """Milliseconds, interpolated between neighbours."""
    return (
        1000
        * statistics.quantiles(seconds, n=100, method="inclusive")[
            round(share * 100) - 1
        ]
    )


@functools.cache
def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """CPU, cores, memory, system: what the figures hold for."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"model name\s*: (.+)", information.read_text())
        name = found[1] if found else name
    elif sys.platform == "darwin":
        name = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    return (
        f"{name}, {cores()} cores, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="one photo at a time")
    parser.add_argument("--write", action="store_true", help=f"into {REPORT.name}")
    options = parser.parse_args()

    small = astronaut()
    # As a phone takes it: 12 megapixels, four to three.
    large = small.crop((0, 0, 512, 384)).resize((4032, 3024), Image.Resampling.LANCZOS)
    photos = {
        "512 x 512 JPEG": encode(small, quality=90),
        "4032 x 3024 JPEG": encode(large, quality=90),
    }
    load = os.getloadavg()[0]
    print(f"{machine()}; load before: {load:.1f}", flush=True)
    if load > 0.5:
        print("This machine is busy: the figures will be too high.", flush=True)
    networks = Networks()
    rows: dict[tuple[str, int], Timings] = {}
    with (
        tempfile.TemporaryDirectory(prefix="mien-bench-") as folder,
        Stack(Path(folder) / "home") as stack,
    ):
        for image in photos.values():
            measure_burst(stack, networks, image, 3)
        for name, image in photos.items():
            rows[name, 1] = measure_single(stack, networks, image, options.rounds)
            rounds = max(options.rounds // AT_ONCE, 2)
            rows[name, AT_ONCE] = measure_burst(stack, networks, image, rounds)
    text = f"{table(rows)}\n\nMilliseconds on {machine()}. {model_line(networks.model)}"
    print(text)
    if options.write:
        put("make bench", text, REPORT)


if __name__ == "__main__":
    main()
