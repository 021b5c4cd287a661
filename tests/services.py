"""PostgreSQL and Redis for one command, in a folder and on ports of their own.

    python -m tests.services pytest webapp tests

On Debian and its kin, as root, what is missing is installed first. The servers end
with this process, in whatever way it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis

from tests.installing import Unavailable, install_packages
from webapp.config.processes import ProcessGroup

USER = "mien"
START_LIMIT_SECONDS = 180.0
POSTGRES_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


def find_program(name: str) -> str | None:
    """On the PATH, or where Debian, Red Hat and Homebrew hide PostgreSQL."""
    path = shutil.which(name)
    if path:
        return path
    for pattern in POSTGRES_FOLDERS:
        found = sorted(Path("/").glob(f"{pattern[1:]}/{name}"))
        if found:
            return str(found[-1])
    return None


def install_missing() -> None:
    """Install what is missing, where that is possible. Raises ``Unavailable``."""
    packages = {"initdb": "postgresql", "redis-server": "redis-server"}
    missing = [packages[name] for name in packages if find_program(name) is None]
    if missing:
        install_packages(missing)


def program(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise Unavailable(f"{name} is not there, although it was installed.")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Services:
    """PostgreSQL and Redis below ``folder``, in one process group, and where asked
    moto's server, which stands in for an S3-compatible store."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self._folder = folder
        self._host = host
        self._group = ProcessGroup()
        # PostgreSQL refuses to run as root; its package brings a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._servers: list[subprocess.Popen[bytes]] = []

    def start(self) -> dict[str, str]:
        """The variables that name them. Raises ``Unavailable``."""
        redis_url = self._start_redis()
        return {
            "MIEN_DATABASE_URL": self._start_postgres(),
            "MIEN_BROKER_URL": f"{redis_url}/0",
            "MIEN_CACHE_URL": f"{redis_url}/1",
        }

    def start_store(self) -> dict[str, str]:
        """The variable that names the store, which forgets all at its end."""
        port = free_port()
        key, secret = "mien", secrets.token_urlsafe(24)
        server = self._launch(
            [sys.executable, "-m", "moto.server", "-H", self._host, "-p", str(port)],
            "store.log",
        )
        address = (self._host, port)
        self._wait(lambda: _listens(address), server, "store.log")
        url = f"s3://{key}:{secret}@{self._host}:{port}/mien?tls=0"
        return {"MIEN_STORAGE_URL": url}

    def stop(self) -> None:
        for server in self._servers:
            # PostgreSQL's word for: end all sessions, then yourself, tidily.
            is_postgres = "-D" in server.args
            server.send_signal(signal.SIGINT if is_postgres else signal.SIGTERM)
        for server in self._servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
        self._group.kill()

    def _start_postgres(self) -> str:
        data, password = self._folder / "postgres", secrets.token_urlsafe(24)
        password_file = self._folder / "password"
        password_file.write_text(password)
        data.mkdir(mode=0o700)
        if self._user:
            shutil.chown(password_file, self._user)
            shutil.chown(data, self._user)
        port = free_port()
        self._run(
            [
                *(program("initdb"), "--pgdata", str(data), "--username", USER),
                *("--encoding", "UTF8", "--no-locale", "--no-sync"),
                *("--auth", "scram-sha-256", "--pwfile", str(password_file)),
            ]
        )
        with (data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet scram-sha-256\n")
        server = self._launch(
            [
                *(program("postgres"), "-D", str(data)),
                # No socket: its folder may be one that only root can write to.
                *("-h", self._host, "-p", str(port), "-k", ""),
                # Nothing here must survive a power cut: nobody waits for the disk.
                *("-c", "fsync=off", "-c", "full_page_writes=off"),
            ],
            "postgres.log",
            self._user,
        )
        url = f"postgres://{USER}:{password}@{self._host}:{port}/postgres"

        def answers() -> bool:
            try:
                psycopg.connect(url, connect_timeout=1).close()
            except psycopg.OperationalError:
                return False
            return True

        self._wait(answers, server, "postgres.log")
        return url

    def _start_redis(self) -> str:
        port = free_port()
        server = self._launch(
            [
                *(program("redis-server"), "--bind", self._host, "--port", str(port)),
                *("--dir", str(self._folder), "--appendonly", "yes", "--save", ""),
                # Every site of a run takes databases of its own, and keeps them.
                *("--databases", "256"),
                # Other hosts come without a password in tests.
                *("--protected-mode", "no"),
            ],
            "redis.log",
        )
        url = f"redis://{self._host}:{port}"

        def answers() -> bool:
            try:
                with redis.Redis.from_url(url) as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        self._wait(answers, server, "redis.log")
        return url

    def _run(self, command: list[str]) -> None:
        result = subprocess.run(
            command,
            cwd=self._folder,
            user=self._user,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise Unavailable(f"{command[0]} failed:\n{result.stdout}{result.stderr}")

    def _launch(
        self, command: list[str], log: str, user: str | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._folder / log).open("wb") as output:
            server = subprocess.Popen(
                command,
                cwd=self._folder,
                user=user,
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=self._group.id,
            )
        self._servers.append(server)
        return server

    def _wait(
        self, answers: Callable[[], bool], server: subprocess.Popen[bytes], log: str
    ) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not answers():
            if server.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / log).read_text(errors="replace")
                raise Unavailable(f"{server.args} does not start:\n{said}")
            time.sleep(0.05)


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(address) == 0


def main(command: list[str]) -> int:
    """Run the command beside the servers; its exit code."""
    if not command:
        print("usage: python -m tests.services COMMAND [WORD ...]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        install_missing()
        with tempfile.TemporaryDirectory(prefix="mien-services-") as folder:
            # PostgreSQL's user must get to its own folder below.
            Path(folder).chmod(0o711)
            services = Services(Path(folder))
            try:
                variables = services.start()
                print("services: PostgreSQL and Redis are up", flush=True)
                return subprocess.run(
                    command, env={**os.environ, **variables}
                ).returncode
            finally:
                services.stop()
    except Unavailable as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
