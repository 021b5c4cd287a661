"""How many photos a second: the site, the networks alone, bare FastAPI, LitServe.

    make bench-servers
    make bench-servers ARGS=--write

Each gets the same photograph as often as it can take it, from eight clients with a
connection each, and has one reading process a core. The site is asked for what the
others do not do: it stores the photo and its result, and counts a photo only once its
result stands in the database. All four take turns, several times, in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.latency import REPORT, Networks, cores, machine
from benchmarks.load import Site, measure_capacity
from benchmarks.report import model_line, put
from tests.pictures import as_form, astronaut, encode
from tests.stack import ROOT, Stack

AT_ONCE: Final = 8
START_LIMIT_SECONDS: Final = 90.0
WANTED: Final = {"networks alone": 0.7, "FastAPI": 0.85, "LitServe": 1.0}
"""What the site's throughput should be of each."""


def alone(image: bytes, seconds: float) -> float:
    """Photos a second of one process a core that does nothing else."""
    context = multiprocessing.get_context("spawn")
    counts: multiprocessing.Queue[int] = context.Queue()
    start = context.Barrier(cores() + 1)
    workers = [
        context.Process(target=_read_for, args=(image, seconds, counts, start))
        for _ in range(cores())
    ]
    for worker in workers:
        worker.start()
    start.wait(START_LIMIT_SECONDS)
    total = sum(counts.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total / seconds


def _read_for(
    image: bytes,
    seconds: float,
    counts: multiprocessing.Queue[int],
    start: threading.Barrier,
) -> None:
    networks = Networks()
    networks.photo(image)
    start.wait(START_LIMIT_SECONDS)
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        networks.photo(image)
        count += 1
    counts.put(count)


@contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server in a process group of its own, until it answers and then gone."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} does not start")
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, image: bytes, seconds: float) -> float:
    """Photos a second that a server at ``/predict`` answers."""
    body, kind = as_form(image)
    headers = {"Content-Type": kind}
    done: list[int] = []
    started_at = time.monotonic()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        count = 0
        while time.monotonic() - started_at < seconds:
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            data = response.read()
            if response.status != 200 or b"probabilities" not in data:
                raise RuntimeError(f"{response.status}: {data[:200]!r}")
            count += 1
        done.append(count)

    threads = [threading.Thread(target=client) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) != AT_ONCE:
        raise RuntimeError("a client failed; the lines above say why")
    return sum(done) / (time.monotonic() - started_at)


def bare_command(name: str, port: int) -> list[str]:
    if name == "FastAPI":
        return [
            *(sys.executable, "-m", "uvicorn", "benchmarks.bare_fastapi:app"),
            *("--port", str(port), "--workers", str(cores())),
            *("--log-level", "warning"),
        ]
    return [sys.executable, "-m", "benchmarks.bare_litserve", str(port), str(cores())]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bare(name: str, image: bytes, seconds: float) -> float:
    port = free_port()
    with server(bare_command(name, port), port):
        # Every process has loaded its networks after that.
        ask(port, image, 5)
        return ask(port, image, seconds)


def site(image: bytes, seconds: float) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="mien-bench-") as folder,
        Stack(Path(folder) / "home", {"MIEN_UPLOAD_RATE": ""}) as stack,
    ):
        running = Site(stack, image)
        measure_capacity(running, 5)
        before, started_at = running.processor_seconds(), time.monotonic()
        rate = measure_capacity(running, seconds)
        photos = rate * (time.monotonic() - started_at)
        spent = {
            name: 1000 * (after - before[name]) / photos
            for name, after in running.processor_seconds().items()
        }
        print(
            f"   processors, ms a photo: {sum(spent.values()):.1f}; "
            + ", ".join(f"{name} {value:.1f}" for name, value in spent.items()),
            flush=True,
        )
        return rate


def table(figures: dict[str, list[float]]) -> str:
    lines = [
        "| | photos a second | the site has of it | wanted |",
        "|---|--:|--:|--:|",
    ]
    ours = statistics.median(figures["the site"])
    for name, values in figures.items():
        rate = statistics.median(values)
        wanted = WANTED.get(name)
        lines.append(
            f"| {name} | {rate:.1f} | {ours / rate:.2f} | "
            f"{f'{wanted:.2f}' if wanted else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--write", action="store_true", help=f"into {REPORT.name}")
    options = parser.parse_args()
    image = encode(astronaut(), quality=90)
    load = os.getloadavg()[0]
    print(f"{machine()}; load before: {load:.1f}", flush=True)
    measures: dict[str, Callable[[], float]] = {
        "the site": lambda: site(image, options.seconds),
        "networks alone": lambda: alone(image, options.seconds),
        "FastAPI": lambda: bare("FastAPI", image, options.seconds),
        "LitServe": lambda: bare("LitServe", image, options.seconds),
    }
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(options.rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
            print(f"{number + 1}. {name}: {figures[name][-1]:.1f}", flush=True)
    busy = (
        f" Other work ran on the machine (load {load:.1f} before): take the ratios, "
        "with care."
        if load > 0.5
        else ""
    )
    text = (
        f"{table(figures)}\n\nMedians of {options.rounds} rounds of "
        f"{options.seconds:g} s, a 512 x 512 JPEG, on {machine()}.{busy} "
        f"{model_line(Networks().model)}"
    )
    print(text)
    if options.write:
        put("make bench-servers", text, REPORT)


if __name__ == "__main__":
    main()
