"""``make run``: broker, web, workers and beat as one.

One log, one Ctrl-C. What dies is started again; what is stopped is stopped in order:
nobody gives new work before nobody takes any, and the broker goes last. All children
are one process group, apart from the terminal's, so that a Ctrl-C reaches only this
process; and whatever ends this process ends the group (``processes``).
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from webapp.config import broker, serve
from webapp.config.processes import ProcessGroup
from webapp.config.serve import BASE_DIR

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8000
DEFAULT_HOME: Final = str(BASE_DIR / "var")

FIRST_DELAY_SECONDS: Final = 0.2
_LONGEST_DELAY_SECONDS: Final = 10.0
_HEALTHY_AFTER_SECONDS: Final = 5.0
"""Who lived this long is started again after the first, short delay."""

_BROKER_LIMIT_SECONDS: Final = 30.0
_WEB_LIMIT_SECONDS: Final = 60.0
_LOCK_LIMIT_SECONDS: Final = 2.0
_LOG_MAX_BYTES: Final = 5_000_000
_LINE_MAX_BYTES: Final = 16_384

_COLOURS: Final = {
    "mien": "1",
    "broker": "35",
    "web": "32",
    "inference": "36",
    "training": "34",
    "beat": "33",
}


class Refused(Exception):
    """It cannot start; says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """One child. At the end all of ``turn`` 1 stop first, who may take
    ``stop_seconds`` to end their work, then those of 2, then those of 3."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    turn: int
    stop_seconds: float = 10.0
    pass_fds: tuple[int, ...] = ()


class Log:
    """Lines of all children, prefixed: to the terminal, and to a file of bounded
    size that keeps one predecessor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._opened()
        self._terminal = True
        self._coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def line(self, name: str, text: str, *, keep: bool = True) -> None:
        """Write one line; ``keep=False`` leaves it out of the file."""
        prefix = f"{name:<9} |"
        if keep:
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            self._to_file(f"{now} {prefix} {text}\n".encode(errors="replace"))
        if self._coloured:
            prefix = f"\033[{_COLOURS.get(name, '0')}m{prefix}\033[0m"
        self._to_terminal(f"{prefix} {text}")

    def _to_terminal(self, text: str) -> None:
        if not self._terminal:
            return
        try:
            print(text, flush=True)
        except OSError:
            # Whoever read our output is gone; the file goes on.
            self._terminal = False

    def _opened(self) -> io.BufferedWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("ab")

    def _to_file(self, data: bytes) -> None:
        try:
            if self._file.closed:
                # What failed the last time may be well again.
                self._file = self._opened()
            if self._file.tell() + len(data) > _LOG_MAX_BYTES:
                self._file.close()
                # Somebody may have removed it.
                with suppress(FileNotFoundError):
                    self._path.replace(self._path.with_suffix(".1.log"))
                self._file = self._opened()
            self._file.write(data)
            self._file.flush()
        except (OSError, ValueError) as error:
            # A full disk must not stop the site; the terminal still shows the line.
            self._to_terminal(f"mien      | {self._path} cannot be written: {error}")


class Output:
    """The pipe that a child writes to, over all its restarts, cut into lines."""

    def __init__(self, name: str, log: Log) -> None:
        self._name = name
        self._log = log
        self._rest = b""
        self._read_fd, self.write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        asyncio.get_running_loop().add_reader(self._read_fd, self._read)

    def close(self) -> None:
        """Read what is left and let go."""
        while self._read():
            pass
        if self._rest:
            self._say(self._rest)
        asyncio.get_running_loop().remove_reader(self._read_fd)
        os.close(self._read_fd)
        os.close(self.write_fd)

    def _read(self) -> bool:
        try:
            data = os.read(self._read_fd, 65_536)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > _LINE_MAX_BYTES:
            self._say(self._rest)
            self._rest = b""
        return True

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._log.line(self._name, text)


class Child:
    """Keeps one service running, until told to stop."""

    def __init__(self, service: Service, group: ProcessGroup, log: Log) -> None:
        self.service = service
        self._group = group
        self._log = log
        self._output = Output(service.name, log)
        self._process: asyncio.subprocess.Process | None = None
        self._task = asyncio.create_task(self._keep_running())

    async def stop(self) -> None:
        """Ask it to end, wait as long as it may take, then end it."""
        await _cancelled(self._task)
        process, limit = self._process, self.service.stop_seconds
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), limit)
            except TimeoutError:
                self._log.line("mien", f"{self.service.name} takes too long: killed")
                process.kill()
                await process.wait()
        self._output.close()

    async def _keep_running(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            started_at = time.monotonic()
            end = await self._run_once()
            if time.monotonic() - started_at >= _HEALTHY_AFTER_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._log.line(
                "mien",
                f"{self.service.name} ended ({end}), starting it again in {delay:g} s",
            )
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY_SECONDS)

    async def _run_once(self) -> str:
        """Start it and wait for its end; why it ended."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.service.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._output.write_fd,
                stderr=self._output.write_fd,
                cwd=BASE_DIR,
                env=self.service.environment,
                pass_fds=self.service.pass_fds,
                process_group=self._group.id,
            )
        except OSError as error:
            # No memory or no process left on this machine, for the moment.
            return str(error)
        return _reason(await self._process.wait())


@dataclass
class Supervisor:
    """Starts and stops everything around one ``home``."""

    home: Path
    listener: socket.socket
    group: ProcessGroup
    log: Log
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _children: list[Child] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    async def run(self) -> None:
        """Until a signal asks to stop. Raises ``Refused``."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup the terminal's hang-up stays ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal, number)
        work = asyncio.create_task(self._start_and_watch())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        await _cancelled(work, stop)
        await self._stop_all()
        if work.done() and not work.cancelled():
            work.result()

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self.log.line("mien", "stopping; Ctrl-C again ends everything at once")
            self._stop.set()
        elif number == signal.SIGINT:
            self.group.kill()
            os._exit(130)

    async def _start_and_watch(self) -> None:
        started_at = time.monotonic()
        has_terminal = sys.stdout.isatty()
        environment = await self._start_broker()
        greeting = await self._bootstrap(environment)
        services = _services(environment, self.listener.fileno())
        # What a visitor waits for gets the cores first.
        for service in services[:2]:
            self._start(service)
        answers = await self._wait_for_web()
        for service in services[2:]:
            self._start(service)
        url = f"http://{HOST}:{self.port}/"
        seconds = time.monotonic() - started_at
        self.log.line(
            "mien",
            f"Mien is at {url} (ready in {seconds:.1f} s)"
            if answers
            else f"Mien will be at {url} once web answers; the lines above say why it "
            "does not",
        )
        for line in greeting:
            # Passwords: for the person in front of the screen.
            self.log.line("mien", f"  {line}", keep=False)
        self.log.line("mien", f"its data is in {self.home}; Ctrl-C stops everything")
        # A hang-up reaches the leader of the session alone, which may be make, and
        # make waits for us.
        while sys.stdout.isatty() or not has_terminal:
            await asyncio.sleep(1)
            self.group.renew()

    async def _start_broker(self) -> dict[str, str]:
        """The environment of all other children, with where the broker listens."""
        environment = {
            **os.environ,
            "MIEN_HOME": str(self.home),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
        }
        environment.setdefault("MIEN_DEMO", "1")
        # No proxy stands before it that would wait for slow senders: each has a thread.
        environment.setdefault("MIEN_WEB_THREADS", "32")
        metrics = self.home / "run" / "metrics"
        serve.fresh_metrics_folder(metrics)
        environment[serve.METRICS_DIR_NAME] = str(metrics)
        if {"MIEN_BROKER_URL", "MIEN_BROKER_URL_FILE"} & environment.keys():
            return environment
        folder = self.home / "broker"
        folder.mkdir(exist_ok=True)
        path = broker.socket_path(self.home)
        if broker.end_leftover(path):
            self.log.line("mien", "ended the broker that an earlier run left behind")
        command = broker.server_command(broker.find_server(), folder, path)
        service = Service("broker", command, broker.server_environment(), 3)
        self._start(service)
        deadline = time.monotonic() + _BROKER_LIMIT_SECONDS
        while not broker.answers(path):
            if time.monotonic() > deadline:
                raise Refused("The broker does not start; the lines above say why.")
            await asyncio.sleep(0.02)
        environment["MIEN_BROKER_URL"], environment["MIEN_CACHE_URL"] = broker.urls(
            path
        )
        return environment

    def _start(self, service: Service) -> None:
        self._children.append(Child(service, self.group, self.log))

    async def _bootstrap(self, environment: dict[str, str]) -> list[str]:
        """Prepare database, files and model; what it wants the person to read."""
        output = Output("mien", self.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "manage.py", "bootstrap"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output.write_fd,
                cwd=BASE_DIR,
                env=environment,
                process_group=self.group.id,
            )
            try:
                said, _ = await process.communicate()
            except asyncio.CancelledError:
                # Its pipe must not outlive the loop, which could not close it any more.
                process.kill()
                await process.communicate()
                raise
        finally:
            output.close()
        if process.returncode:
            raise Refused("The site could not be prepared; the lines above say why.")
        return said.decode(errors="replace").splitlines()

    async def _wait_for_web(self) -> bool:
        """Whether web answers in time. The socket listens already: a request waits
        there until web takes it."""
        try:
            async with asyncio.timeout(_WEB_LIMIT_SECONDS):
                while not await _is_alive(self.port):
                    await asyncio.sleep(1)
        except TimeoutError:
            return False
        return True

    async def _stop_all(self) -> None:
        self.listener.close()
        for turn in sorted({child.service.turn for child in self._children}):
            await asyncio.gather(
                *(c.stop() for c in self._children if c.service.turn == turn)
            )
        broker.tidy(self.home)


def _services(environment: dict[str, str], web_fd: int) -> list[Service]:
    """What runs beside the broker, the most urgent first."""
    # A socket that outlives a restart of web: who comes meanwhile only waits.
    web = serve.web_command(environment, f"fd://{web_fd}")
    worker_environment = serve.worker_environment(environment)
    workers = [
        Service(
            name,
            serve.inference_command(environment, name),
            worker_environment,
            2,
        )
        for name in _numbered(
            # None, where other hosts do all the reading.
            "inference",
            serve.count(environment, "MIEN_INFERENCE_WORKERS", 1, minimum=0),
        )
    ]
    return [
        Service("web", web, environment, 1, pass_fds=(web_fd,)),
        *workers,
        Service("training", serve.training_command(environment), worker_environment, 2),
        Service("beat", serve.beat_command(environment), environment, 1),
    ]


def _numbered(name: str, count: int) -> list[str]:
    """``name``, ``name2``, ``name3`` ..."""
    return [
        name if number == 1 else f"{name}{number}" for number in range(1, count + 1)
    ]


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Once all have ended what they do when they are cancelled."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _is_alive(port: int) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(b"GET /livez HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        status = await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
    return b" 200 " in status


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def open_home(value: str) -> Path:
    """Make the folder of all data. Raises ``Refused``."""
    home = Path(value)
    try:
        home = home.expanduser().resolve()
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError("it cannot be written to")
    except (OSError, RuntimeError, ValueError) as error:
        raise Refused(
            f"MIEN_HOME={home} cannot be used ({error}). Choose another folder: "
            "make run MIEN_HOME=/some/folder"
        ) from error
    return home


def lock_home(home: Path) -> io.TextIOWrapper:
    """Nobody else may run on this data. Raises ``Refused``."""
    try:
        lock = (home / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise Refused(f"{home} cannot be locked: {error}") from error
    deadline = time.monotonic() + _LOCK_LIMIT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Those of a supervisor that was killed need a moment to end.
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            lock.seek(0)
            who = lock.read().strip()
            raise Refused(
                f"Mien already runs on {home} ({who}). Stop it there, or use another "
                "folder and port: make run MIEN_HOME=/some/folder PORT=8001"
            ) from None
        except OSError as error:
            raise Refused(f"{home} cannot be locked: {error}") from error
        return lock


def open_log(home: Path) -> Log:
    """The log below ``home``. Raises ``Refused``."""
    try:
        return Log(home / "log" / "mien.log")
    except OSError as error:
        raise Refused(f"The log cannot be written: {error}") from error


def listen(value: str) -> socket.socket:
    """A socket at the port that the text names, 0 for any. Raises ``Refused``."""
    value = value.strip()
    # A number of thousands of digits is none that Python reads.
    if not value.isdecimal() or len(value) > 5 or int(value) > 65_535:
        raise Refused(f"PORT={value[:80]} is no port: choose one from 1024 to 65535.")
    port = int(value)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if port and _is_taken(port):
            raise OSError("somebody answers there")
        listener.bind((HOST, port))
        listener.listen(128)
    except PermissionError as error:
        raise Refused(f"Port {port} needs root. Try: make run PORT=8000") from error
    except OSError as error:
        raise Refused(
            f"Port {port} is taken. Choose another one: "
            f"make run PORT={port % 65_535 + 1}"
        ) from error
    return listener


def _is_taken(port: int) -> bool:
    """macOS lets two listen at one port, if one of them does at all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def main() -> int:
    """Run until asked to stop; 0, or 1 with a sentence that says what to do."""
    try:
        # Said before anything starts.
        _services(dict(os.environ), web_fd=-1)
        home = open_home(os.environ.get("MIEN_HOME", "").strip() or DEFAULT_HOME)
        lock = lock_home(home)
        listener = listen(os.environ.get("PORT", "").strip() or str(DEFAULT_PORT))
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, port {listener.getsockname()[1]}")
        lock.flush()
        group = ProcessGroup(keep_open=[lock.fileno()])
        try:
            log = open_log(home)
            asyncio.run(_run(home, listener, group, log))
        finally:
            group.kill()
    except (Refused, serve.Misused, broker.BrokerUnavailable) as refusal:
        print(f"mien: {refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a file where a folder belongs, no descriptor left.
        print(f"mien: the site cannot run on: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(
    home: Path, listener: socket.socket, group: ProcessGroup, log: Log
) -> None:
    await Supervisor(home, listener, group, log).run()


if __name__ == "__main__":
    sys.exit(main())
