"""``make run`` as a person meets it: it starts, answers, survives and ends whole."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.pictures import astronaut, encode
from tests.stack import ROOT, STOP_LIMIT_SECONDS, Stack, environment, processes_of
from webapp.config import broker, embedded

SUPERVISOR = [sys.executable, "-m", "webapp.config.embedded"]
SERVICES = ("broker", "web", "inference", "training", "beat")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One home for all: what an earlier start left behind is part of the story.

    Its path is too long for a socket, as that of a deep home folder may be.
    """
    folder = Path(tempfile.mkdtemp(prefix="mien-run-"))
    home = folder / ("deep" * 25)
    yield home
    left = processes_of(home)
    for process in left:
        process.kill()
    shutil.rmtree(broker.socket_path(home).parent)
    shutil.rmtree(folder)
    assert not left


@pytest.fixture(scope="module")
def image() -> bytes:
    return encode(astronaut().resize((256, 256)))


def eventually(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refusal_of(given: dict[str, str], home: Path) -> str:
    """What a start says that must fail."""
    result = subprocess.run(
        SUPERVISOR,
        cwd=ROOT,
        env=environment(home, given),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def test_photo_goes_in_and_its_face_comes_back(home: Path, image: bytes) -> None:
    with Stack(home) as stack:
        photo = stack.result(stack.upload(image))
        assert stack.stop(signal.SIGTERM) == 0
        assert "Traceback" not in stack.output

    assert photo["status"] == "done"
    assert len(photo["faces"]) == 1
    assert sum(photo["faces"][0]["probabilities"].values()) == pytest.approx(
        1, abs=1e-3
    )
    assert processes_of(home) == []


def test_second_start_finds_nothing_to_prepare_and_a_third_beside_it_is_refused(
    home: Path,
) -> None:
    with Stack(home) as stack:
        assert "Collecting static files" not in stack.output
        assert "Bringing the database" not in stack.output
        assert "annotator: ada, password" in stack.output

        said = refusal_of({}, home)

        assert f"already runs on {home}" in said
        assert f"process {stack.process.pid}, port {stack.port}" in said
        assert stack.request("GET", "/livez") == (200, "ok\n")

    log = (home / "log" / "mien.log").read_text(encoding="utf-8")
    assert "Collecting static files" in log
    assert "password" not in log


def test_killed_child_is_started_again(home: Path, image: bytes) -> None:
    with Stack(home) as stack:
        eventually(lambda: set(SERVICES) <= stack.running())
        before = {name: stack.service(name).pid for name in SERVICES}
        for name in SERVICES:
            psutil.Process(before[name]).kill()

        for name in SERVICES:
            again = f"starting it again in {embedded.FIRST_DELAY_SECONDS:g} s"
            stack.wait_for(rf"{name} ended \(SIGKILL\), {re.escape(again)}")

        # Nobody is turned away meanwhile: the socket is still there.
        assert stack.request("GET", "/livez") == (200, "ok\n")
        assert stack.result(stack.upload(image))["status"] == "done"
        eventually(lambda: set(SERVICES) <= stack.running())
        assert all(stack.service(name).pid != before[name] for name in SERVICES)


def guards_of(stack: Stack) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(stack.process.pid).children():
        # One that was killed has no command line any more.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "killpg" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_photo_outlives_the_supervisor_that_was_killed(
    home: Path, image: bytes
) -> None:
    """All that it started ends with it, and a guard sees to that which took the place
    of one that was killed."""
    with Stack(home) as stack:
        [guard] = guards_of(stack)
        guard.kill()
        eventually(lambda: guards_of(stack) not in ([], [guard]))
        path = stack.upload(image)
        stack.process.kill()
        stack.process.wait()
        eventually(lambda: processes_of(home) == [])

    with Stack(home) as stack:
        assert stack.result(path)["status"] == "done"


def test_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        said = refusal_of({"PORT": str(port)}, tmp_path / "home")

    assert f"Port {port} is taken" in said
    assert f"make run PORT={port + 1}" in said
    assert not (tmp_path / "home" / "broker").exists()


@pytest.mark.parametrize("port", ["http", "-1", "70000"])
def test_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    assert "is no port" in refusal_of({"PORT": port}, tmp_path)


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()

    assert "Choose another folder" in refusal_of({}, home)


@pytest.mark.parametrize("name", ["lock", "log", "run", "broker"])
def test_file_or_folder_in_the_way_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    if name == "lock":
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()

    said = refusal_of({}, tmp_path)

    assert str(tmp_path / name) in said
    assert "Traceback" not in said


def test_port_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    assert "is no port" in refusal_of({"PORT": "9" * 5000}, tmp_path)


def test_count_of_processes_that_is_none_is_refused(tmp_path: Path) -> None:
    said = refusal_of({"MIEN_INFERENCE_WORKERS": "many"}, tmp_path / "home")

    assert "must be a whole number" in said
    assert processes_of(tmp_path / "home") == []


class Terminal:
    """``make run`` in the foreground of a terminal, as a shell starts it."""

    def __init__(self, home: Path) -> None:
        self.output = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # As in a new shell, also where the tests run under nohup.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.chdir(ROOT)
            words = ("make", "-o", "venv", "run", f"PY={sys.executable}", "PORT=0")
            os.execvpe("make", words, environment(home, {}))
        os.set_blocking(self._fd, False)

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def read(self) -> str:
        # Nothing new, or the last one at the other end is gone.
        with contextlib.suppress(OSError):
            self.output += os.read(self._fd, 65_536).decode(errors="replace")
        return self.output

    def close(self) -> None:
        """As closing the window does."""
        os.close(self._fd)

    def wait(self, seconds: float = STOP_LIMIT_SECONDS) -> None:
        def ended() -> bool:
            self.read()
            return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid

        eventually(ended, seconds)


CTRL_C = b"\x03"


def is_training(process: psutil.Process) -> bool:
    try:
        return any(word.startswith("training@") for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_ctrl_c_leaves_nothing_running(home: Path) -> None:
    terminal = Terminal(home)
    eventually(lambda: "Mien is at" in terminal.read())
    terminal.press(CTRL_C)
    terminal.wait()

    assert processes_of(home) == []
    assert "Traceback" not in terminal.output
    assert "\033[" in terminal.output  # Colour, since this is a terminal.


def test_early_ctrl_c_stops_a_start_half_way(home: Path) -> None:
    terminal = Terminal(home)
    eventually(lambda: processes_of(home))
    while True:
        # However often and early: it is never answered with a traceback.
        terminal.press(CTRL_C)
        time.sleep(0.3)
        if os.waitpid(terminal.pid, os.WNOHANG)[0]:
            break
    terminal.read()

    eventually(lambda: processes_of(home) == [])
    assert "Traceback" not in terminal.output


def test_second_ctrl_c_ends_everything_at_once(home: Path) -> None:
    terminal = Terminal(home)
    eventually(lambda: "Mien is at" in terminal.read())
    # It cannot end by itself: who waits for it says in the end that it is killed.
    [worker, *_] = [process for process in processes_of(home) if is_training(process)]
    worker.suspend()
    terminal.press(CTRL_C)
    eventually(lambda: "stopping" in terminal.read())
    terminal.press(CTRL_C)
    terminal.wait()

    assert processes_of(home) == []
    assert "takes too long" not in terminal.output
    assert "Traceback" not in terminal.output


def test_closed_terminal_stops_everything(home: Path) -> None:
    terminal = Terminal(home)
    eventually(lambda: "Mien is at" in terminal.read())
    terminal.close()

    eventually(lambda: processes_of(home) == [])
    os.waitpid(terminal.pid, 0)
