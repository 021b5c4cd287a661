"""Worker hosts as network namespaces: ``python -m tests.hosts``, started by
``tests/test_hosts.py`` inside a namespace of its own.

The site, its database, broker and store are on one side of a bridge; each host is a
process with a network of its own on the other, whose only way is a cable that can be
pulled. Needs root, or a kernel that lets users have namespaces; either way nothing
outside of it is touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from tests.pictures import astronaut, encode
from tests.services import Services
from tests.stack import ROOT, Stack, prepare
from webapp.config.processes import ProcessGroup

BRIDGE: Final = "10.77.0.1"
HOSTS: Final = 3
LIMIT_SECONDS: Final = 180.0
"""For what must come, however busy the machine is."""
WORKED_SECONDS: Final = 0.3
"""Of a processor's time: some photos, and more than waiting takes."""

JOIN: Final = ("MIEN_DATABASE_URL", "MIEN_BROKER_URL", "MIEN_STORAGE_URL")
"""All that a worker host is told."""

READ_BY: Final = """
import json
from django.db.models import Count
from webapp.photos.models import Photo, Prediction
print(json.dumps({
    "by_status": dict(Photo.objects.values_list("status").annotate(Count("pk"))),
    "predictions": Prediction.objects.count(),
}))
"""


def enter() -> list[str]:
    """What to put before a command, so that it may make networks. ``unshare`` comes
    with every Linux; as root no user namespace is needed."""
    if os.geteuid() == 0:
        return ["unshare", "--net"]
    return ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]


class Host:
    """A worker host, joined by three variables, at the end of a cable."""

    def __init__(
        self, number: int, variables: dict[str, str], folder: Path, group: int
    ) -> None:
        self.name = f"host{number}"
        self._cable = f"cable{number}"
        self._log = folder / f"{self.name}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MIEN_")}
        environment = {
            **kept,
            **{name: variables[name] for name in JOIN},
            "MIEN_WORKER_PROCESSES": "1",
            # Each thinks of itself as another machine.
            "MIEN_HOME": str(self._log.with_suffix(".home")),
        }
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    # It waits for its network, then becomes the worker.
                    *("unshare", "--net", "sh", "-c", 'read go; exec "$@"', "sh"),
                    *(sys.executable, "-m", "webapp.config.serve", "inference"),
                ],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=group,
            )
        self._plug_in(number)
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()

    def _plug_in(self, number: int) -> None:
        pid = str(self.process.pid)
        namespace = Path(f"/proc/{pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        while namespace.readlink() == own:
            time.sleep(0.01)
        ip(
            "link",
            "add",
            self._cable,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            pid,
        )
        ip("link", "set", self._cable, "master", "bridge")
        self.plug()
        inside = ["nsenter", f"--net={namespace}", "ip"]
        for words in (
            ["link", "set", "lo", "up"],
            ["address", "add", f"10.77.0.{10 + number}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            subprocess.run([*inside, *words], check=True)

    def plug(self) -> None:
        ip("link", "set", self._cable, "up")

    def pull(self) -> None:
        """The other side is not told: packets just do not come any more."""
        ip("link", "set", self._cable, "down")

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said
        return "ready." in self.said

    def cpu_seconds(self) -> float:
        """Of all its processes."""
        worker = psutil.Process(self.process.pid)
        return sum(
            process.cpu_times().user
            for process in [worker, *worker.children(recursive=True)]
        )


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def site() -> Iterator[tuple[Stack, list[Host]]]:
    """Everything but inference workers on this side of the bridge, and those."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "bridge", "type", "bridge")
    ip("address", "add", f"{BRIDGE}/24", "dev", "bridge")
    ip("link", "set", "bridge", "up")
    group = ProcessGroup()
    with tempfile.TemporaryDirectory(prefix="mien-hosts-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        services = Services(folder, BRIDGE)
        try:
            variables = services.start() | services.start_store()
            del variables["MIEN_CACHE_URL"]
            given = {**variables, "MIEN_INFERENCE_WORKERS": "0"}
            with Stack(prepare(folder / "home"), given) as stack:
                yield (
                    stack,
                    [
                        Host(number, variables, folder, group.id)
                        for number in range(1, HOSTS + 1)
                    ],
                )
        finally:
            group.kill()
            services.stop()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def main(cut_seconds: float, photos: int) -> dict[str, object]:
    """Upload while one of three hosts is cut off; what came of it."""
    image = encode(astronaut().resize((256, 256)))
    with site() as (stack, hosts):
        for host in hosts:
            wait_until(host.is_ready, f"{host.name} is not ready")
        at_first = {host.name: host.cpu_seconds() for host in hosts}
        lost = hosts[0]
        paths: list[str] = []
        stop = threading.Event()

        def upload() -> None:
            for _ in range(photos // 2):
                paths.append(stack.upload(image))
            while not stop.wait(0.1):
                paths.append(stack.upload(image))

        uploader = threading.Thread(target=upload)
        uploader.start()
        try:
            # In the middle of its work.
            wait_until(lambda: len(paths) >= photos // 4, "no uploads")
            lost.pull()
            at_the_cut = len(paths)
            time.sleep(cut_seconds)
            wait_until(lambda: len(paths) > at_the_cut, "no uploads during the cut")
            during = len(paths) - at_the_cut
            lost.plug()
            plugged_at = time.monotonic()
            before = lost.cpu_seconds()
            slowest = 0.0
            wait_until(
                lambda: lost.cpu_seconds() > before + WORKED_SECONDS,
                f"{lost.name} took no work again",
            )
            back_seconds = time.monotonic() - plugged_at
            for host in hosts:
                # Photos still come in: each has its turn.
                wait_until(
                    lambda host=host: (
                        host.cpu_seconds() > at_first[host.name] + WORKED_SECONDS
                    ),
                    f"{host.name} took no work",
                )
        finally:
            stop.set()
            uploader.join()
        for path in paths:
            asked_at = time.monotonic()
            result = stack.result(path)
            slowest = max(slowest, time.monotonic() - asked_at)
            assert result["status"] == "done", result
            assert len(result["faces"]) == 1, result
        counts = json.loads(stack.manage("shell", "--no-imports", "-c", READ_BY))
        return {
            "photos": len(paths),
            "during_the_cut": during,
            "back_seconds": round(back_seconds, 1),
            "slowest_wait_at_the_end_seconds": round(slowest, 1),
            "cut_seconds": cut_seconds,
            **counts,
        }


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), int(sys.argv[2]))))
