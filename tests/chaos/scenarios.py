"""What may happen to the site: one function each, by name."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.harness import GIVEN, Chaos, small_disk
from tests.chaos.visitors import Visitors
from tests.pictures import astronaut, encode
from tests.stack import Stack, own_services, prepare


@dataclass(frozen=True)
class Size:
    """How much of it: photos, kills, and seconds that a fault lasts."""

    count: int
    kills: int
    seconds: float


@dataclass(frozen=True)
class Scenario:
    """``full`` is what ``make chaos`` does, ``short`` what ``make test`` does; a
    count of 0 there leaves it to ``make chaos``."""

    run: Callable[[Chaos, float], None]
    full: Size
    short: Size


def workers(chaos: Chaos, _: float) -> None:
    """Workers are killed: by turns the one that spreads the work and one that reads."""
    for number in chaos.shares(chaos.kills):
        chaos.kill("inference", child=number % 2 == 1)


def web(chaos: Chaos, _: float) -> None:
    """Web processes are killed: by turns the master and one that answers."""
    for number in chaos.shares(chaos.kills):
        chaos.kill("web", child=number % 2 == 1)


def broker(chaos: Chaos, _: float) -> None:
    """The broker is killed, and emptied once."""
    for number in chaos.shares(chaos.kills + 1):
        if number == chaos.kills // 2 or not _is_ours(chaos):
            chaos.empty_broker()
        else:
            chaos.kill("broker")


def beat(chaos: Chaos, _: float) -> None:
    """The beat is killed at the moment in which all messages are lost, those of
    photos that nobody could read meanwhile among them."""
    for _number in chaos.shares(chaos.kills):
        with chaos.stopped_readers():
            chaos.kill("beat")
            time.sleep(0.5)
            chaos.empty_broker()


def locked(chaos: Chaos, seconds: float) -> None:
    """The database takes nothing: for a moment, then for longer than anybody waits."""
    for number in chaos.shares(2):
        time.sleep(0.5)
        chaos.lock_database(seconds if number else 3)


def disk(chaos: Chaos, seconds: float) -> None:
    """There is no room for photos for a while."""
    for number in chaos.shares(2):
        if number:
            with chaos.full_disk():
                time.sleep(seconds)
        else:
            time.sleep(0.5)


def hang(chaos: Chaos, seconds: float) -> None:
    """All that read photos stand still, and live."""
    for number in chaos.shares(2):
        time.sleep(0.5)
        if number:
            with chaos.stopped_readers():
                time.sleep(seconds)


def stuck(chaos: Chaos, _: float) -> None:
    """A photo on which the reading hangs, 20 s and three times, until that is ended."""
    chaos.poison()
    for _number in chaos.shares(1):
        time.sleep(62)


def poison(chaos: Chaos, _: float) -> None:
    """A photo that kills whoever reads it."""
    for _number in chaos.shares(1):
        promise = chaos.poison()
        assert chaos.kill_whoever_reads(promise) == 3


SCENARIOS: Final[dict[str, Scenario]] = {
    "workers": Scenario(workers, Size(2000, 40, 0), Size(60, 4, 0)),
    "web": Scenario(web, Size(2000, 20, 0), Size(60, 3, 0)),
    "broker": Scenario(broker, Size(2000, 10, 0), Size(60, 2, 0)),
    "beat": Scenario(beat, Size(2000, 5, 0), Size(40, 2, 0)),
    "locked": Scenario(locked, Size(2000, 0, 30), Size(40, 0, 4)),
    "disk": Scenario(disk, Size(2000, 0, 10), Size(40, 0, 1)),
    "hang": Scenario(hang, Size(2000, 0, 60), Size(0, 0, 0)),
    "stuck": Scenario(stuck, Size(2000, 0, 0), Size(0, 0, 0)),
    "poison": Scenario(poison, Size(2000, 0, 0), Size(40, 0, 0)),
}


def run(name: str, size: Size) -> str:
    """Start a site, do it, and take the account; what is to be told.

    Raises ``AssertionError`` where a promise was broken.
    """
    image = encode(astronaut().resize((192, 192)))
    slowness = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    with (
        tempfile.TemporaryDirectory(prefix="mien-chaos-") as folder,
        own_services() as services,
        small_disk(Path(folder) / "home" / "media" / "photos"),
        Stack(prepare(Path(folder) / "home"), {**services, **GIVEN}) as stack,
    ):
        visitors = Visitors(stack.port, image)
        chaos = Chaos(stack, visitors, size.count, size.kills, slowness=slowness)
        try:
            SCENARIOS[name].run(chaos, size.seconds)
            return chaos.check()
        except BaseException:
            visitors.stop()
            tail = "\n".join(stack.output.splitlines()[-400:])
            print(f"--- the site's last lines\n{tail}", flush=True)
            raise


def _is_ours(chaos: Chaos) -> bool:
    """Whether the broker is the site's own, to be killed and started again."""
    return "MIEN_BROKER_URL" not in chaos.stack.environment
