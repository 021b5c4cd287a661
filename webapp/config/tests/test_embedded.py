from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from webapp.config import broker, embedded, serve
from webapp.config.processes import ProcessGroup


class TestBroker:
    def test_socket_lies_in_the_home(self, tmp_path: Path) -> None:
        home = Path("/srv/mien")

        assert broker.socket_path(home) == home / "valkey.sock"

    def test_deep_home_gets_a_short_private_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", "/tmp")
        home = tmp_path / ("deep" * 25)

        path = broker.socket_path(home)

        assert len(os.fsencode(path)) < 104
        assert path == broker.socket_path(home)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        broker.tidy(home)
        assert not path.parent.exists()

    def test_folder_that_others_can_enter_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", "/tmp")
        home = tmp_path / ("deep" * 25)
        folder = broker.socket_path(home).parent
        folder.chmod(0o755)

        try:
            with pytest.raises(broker.BrokerUnavailable, match="Remove it"):
                broker.socket_path(home)
        finally:
            folder.rmdir()

    def test_server_of_the_package_is_found(self) -> None:
        said = subprocess.run(
            [broker.find_server(), "--version"], capture_output=True, text=True
        ).stdout

        assert "Valkey server" in said

    def test_leftover_is_ended(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        server = subprocess.Popen(
            broker.server_command(broker.find_server(), tmp_path, path),
            env=broker.server_environment(),
            stdout=subprocess.DEVNULL,
        )
        while not broker.answers(path):
            time.sleep(0.01)

        assert broker.end_leftover(path)
        assert server.wait(60) == 0
        assert not broker.end_leftover(path)


class TestGuard:
    def test_group_ends_with_its_owner_however_that_ends(self, tmp_path: Path) -> None:
        script = (
            "import subprocess, time\n"
            "from webapp.config.processes import ProcessGroup\n"
            "group = ProcessGroup()\n"
            "nap = ['sh', '-c', 'trap \"\" TERM HUP INT; sleep 600; true']\n"
            "child = subprocess.Popen(nap, process_group=group.id)\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert _runs(child)

        owner.send_signal(signal.SIGKILL)
        owner.wait()

        deadline = time.monotonic() + 60
        while _runs(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def test_kill_ends_a_group_whose_guard_is_gone(self) -> None:
        group = ProcessGroup()
        child = subprocess.Popen(["sleep", "600"], process_group=group.id)
        os.kill(group.id, signal.SIGKILL)
        while _runs(group.id):
            time.sleep(0.01)

        group.kill()

        assert child.wait(60) == -signal.SIGKILL


class TestLog:
    def test_file_is_bounded_and_keeps_one_predecessor(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded, "_LOG_MAX_BYTES", 500)
        log = embedded.Log(tmp_path / "log" / "mien.log")

        for number in range(50):
            log.line("web", f"line {number}")

        files = sorted((tmp_path / "log").iterdir())
        assert [path.name for path in files] == ["mien.1.log", "mien.log"]
        assert all(path.stat().st_size <= 500 for path in files)
        assert files[1].read_text().endswith("line 49\n")

    def test_file_that_could_not_be_changed_is_written_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(embedded, "_LOG_MAX_BYTES", 100)
        log = embedded.Log(tmp_path / "log" / "mien.log")
        log.line("web", "x" * 60)
        # Where the older file belongs lies a folder: the change fails.
        (tmp_path / "log" / "mien.1.log").mkdir()
        log.line("web", "lost")
        (tmp_path / "log" / "mien.1.log").rmdir()

        log.line("web", "y" * 60)
        assert "y" * 60 in (tmp_path / "log" / "mien.log").read_text()

        (tmp_path / "log" / "mien.log").unlink()
        log.line("web", "after")
        assert "after" in (tmp_path / "log" / "mien.log").read_text()

    def test_output_that_is_no_terminal_has_no_colour(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        embedded.Log(tmp_path / "mien.log").line("web", "hello")

        assert capsys.readouterr().out == "web       | hello\n"

    def test_reader_that_went_away_stops_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as gone:
            monkeypatch.setattr(sys, "stdout", gone)
            log = embedded.Log(tmp_path / "mien.log")
            log.line("web", "one")
            log.line("web", "two")
            monkeypatch.undo()
            with pytest.raises(BrokenPipeError):
                gone.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())

        assert "two" in (tmp_path / "mien.log").read_text()


def _runs(pid: int) -> bool:
    """Alive, and more than an entry in the table of processes."""
    result = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    )
    return bool(result.stdout.strip()) and not result.stdout.startswith("Z")


class WithoutWeb(embedded.Supervisor):
    """Its port takes a connection, and nobody answers."""

    async def _start_broker(self) -> dict[str, str]:
        return {}

    async def _bootstrap(self, environment: dict[str, str]) -> list[str]:
        return []

    def _start(self, service: embedded.Service) -> None:
        pass


def test_web_that_does_not_answer_is_not_called_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_WEB_LIMIT_SECONDS", 0.2)
    log = embedded.Log(tmp_path / "mien.log")
    group = ProcessGroup()

    async def start(listener: socket.socket) -> None:
        supervisor = WithoutWeb(tmp_path, listener, group, log)
        watching = asyncio.create_task(supervisor._start_and_watch())
        async with asyncio.timeout(60):
            while "http://" not in (tmp_path / "mien.log").read_text():
                await asyncio.sleep(0.05)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching

    with (
        socket.create_server((embedded.HOST, 0)) as listener,
        # A browser that an earlier test of this process holds has this thread's loop.
        ThreadPoolExecutor(1) as thread,
    ):
        thread.submit(asyncio.run, start(listener)).result()
    group.kill()

    said = (tmp_path / "mien.log").read_text()
    assert "once web answers" in said
    assert "ready in" not in said


class TestMetricsFolder:
    def test_figures_of_the_dead_go_and_nothing_else_does(self, tmp_path: Path) -> None:
        """A variable that names the wrong folder costs nobody their files, and a
        second part of the site on one host leaves the first one's figures."""
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        theirs = tmp_path / "thesis" / "draft.txt"
        theirs.parent.mkdir()
        theirs.write_text("years of work")
        (tmp_path / "people_1.csv").touch()
        (tmp_path / f"sales_{dead.pid}.db").touch()
        for process in (dead.pid, os.getpid(), os.getppid()):
            (tmp_path / f"counter_{process}.db").touch()
        for kind in ("gauge_livesum", "gauge_all", "histogram", "summary"):
            (tmp_path / f"{kind}_{dead.pid}.db").touch()

        serve.fresh_metrics_folder(tmp_path)

        assert theirs.read_text() == "years of work"
        assert {path.name for path in tmp_path.iterdir()} == {
            "thesis",
            "people_1.csv",
            f"sales_{dead.pid}.db",
            f"counter_{os.getppid()}.db",
        }
