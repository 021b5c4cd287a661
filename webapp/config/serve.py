"""One part of the site as one process: ``python -m webapp.config.serve ROLE``.

``make run`` starts the same command lines as its children, a container or a host of
its own starts one of them alone: ``web``, ``inference``, ``training`` or ``beat``.

A worker host joins by three variables, ``MIEN_DATABASE_URL``, ``MIEN_BROKER_URL`` and
``MIEN_STORAGE_URL``. It is given no secret key: workers sign nothing, and what they do
not know cannot leak from them.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

from django.core.exceptions import ImproperlyConfigured

BASE_DIR: Final = Path(__file__).resolve().parent.parent.parent
DEFAULT_BIND: Final = "0.0.0.0:8000"

_MOST_PROCESSES: Final = 1024
"""More on one host is a slip of the pen."""

METRICS_DIR_NAME: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes of one host count together; the name is the library's own."""

# As the library names files there: counter_123.db, gauge_livesum_123.db.
_FIGURES: Final = re.compile(r"(?:counter|histogram|summary|gauge_[a-z]+)_(\d+)\.db")


class Misused(Exception):
    """The command line or a variable will not do; says what to do."""


def web_command(environment: Mapping[str, str], bind: str) -> list[str]:
    """Gunicorn at ``bind`` with ``MIEN_WEB_PROCESSES`` processes."""
    return [
        *(sys.executable, "-m", "gunicorn", "webapp.config.wsgi:application"),
        *("--bind", bind),
        *("--workers", str(count(environment, "MIEN_WEB_PROCESSES", 1))),
        *("--worker-class", "gthread"),
        *("--threads", str(count(environment, "MIEN_WEB_THREADS", 8))),
        *("--timeout", "60", "--graceful-timeout", "8"),
        # No access log: it would keep the secrets that stand in addresses.
        *("--no-control-socket", "--log-level", "warning"),
        *("--logger-class", "webapp.core.logs.GunicornLogger"),
    ]


def inference_command(
    environment: Mapping[str, str], name: str = "inference"
) -> list[str]:
    """A worker that reads photos and does what else is due, one process a core."""
    processes = count(environment, "MIEN_WORKER_PROCESSES", min(cores(), 4))
    return [
        *(*_WORKER, "-Q", "inference,default", "-n", f"{name}@%h"),
        *("--concurrency", str(processes)),
    ]


def training_command(environment: Mapping[str, str]) -> list[str]:
    """A worker that trains, one model at a time."""
    return [*_WORKER, "-Q", "training", "-n", "training@%h", "--concurrency", "1"]


def beat_command(environment: Mapping[str, str]) -> list[str]:
    """The schedule. A second one would only send each task twice."""
    return [*_CELERY, "beat", "--loglevel", "INFO", "--pidfile="]


_CELERY: Final = (
    *(sys.executable, "-m", "celery", "--quiet", "-A", "webapp.config"),
    # Bootstrap has checked everything.
    "--skip-checks",
)
_WORKER: Final = (
    *(*_CELERY, "worker", "--loglevel", "INFO"),
    # Workers need not know each other: less talk, and a quicker start.
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)
_COMMANDS: Final[dict[str, Callable[[Mapping[str, str]], list[str]]]] = {
    "web": lambda environment: web_command(environment, _bind(environment)),
    "inference": inference_command,
    "training": training_command,
    "beat": beat_command,
}


def _bind(environment: Mapping[str, str]) -> str:
    """Where web listens. Raises ``Misused`` for a port that is none: Gunicorn would
    end in a traceback."""
    bind = environment.get("MIEN_BIND", "").strip() or DEFAULT_BIND
    port = bind.rpartition(":")[2]
    if port.isdecimal() and (len(port) > 5 or int(port) > 65_535):
        raise Misused(f"MIEN_BIND must end in a port up to 65535, not {bind[:80]!r}.")
    return bind


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker process needs beside the site's own variables."""
    return {
        # Networks need the same memory for each photo anew. Given back in between, a
        # tenth of a worker's time went into clearing it. Only glibc knows the names.
        "MALLOC_MMAP_THRESHOLD_": str(64 * 1024**2),
        "MALLOC_TRIM_THRESHOLD_": str(128 * 1024**2),
        "MALLOC_TOP_PAD_": str(16 * 1024**2),
        # One process a core; more threads would only get into each other's way.
        "OMP_NUM_THREADS": "1",
        **environment,
        # macOS ends a forked child that touches Objective-C, as networking does.
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
    }


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count(
    environment: Mapping[str, str], name: str, default: int, minimum: int = 1
) -> int:
    """A variable that counts processes. Raises ``Misused``."""
    text = environment.get(name, "").strip() or str(default)
    number = int(text) if text.isdecimal() and len(text) < 10 else -1
    if not minimum <= number <= _MOST_PROCESSES:
        raise Misused(
            f"{name} must be a whole number from {minimum} to {_MOST_PROCESSES}, "
            f"not {text[:80]!r}."
        )
    return number


def fresh_metrics_folder(folder: Path) -> None:
    """Without the figures of processes that are gone, which must not be added to.
    What others left in the folder is theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*_*.db"):
        found = _FIGURES.fullmatch(path.name)
        if found and not _is_somebody_else(int(found[1])):
            path.unlink(missing_ok=True)


def _is_somebody_else(process: int) -> bool:
    """Whether it lives and is not this one, which has counted nothing yet."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def environment_of(role: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process of that role on a host of its own."""
    given = {
        **environment,
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "webapp.config.settings",
    }
    if role == "training":
        # A process by itself: a full run takes every core.
        given = {"OMP_NUM_THREADS": str(cores()), **given}
    if role != "web":
        given = worker_environment(given)
        if not {"MIEN_SECRET_KEY", "MIEN_SECRET_KEY_FILE"} & given.keys():
            given["MIEN_SECRET_KEY"] = secrets.token_urlsafe(50)
    return given


def _check_settings(environment: Mapping[str, str]) -> None:
    """Read them once here, where a mistake is a sentence: in the process to come it
    would be a traceback for each of its children. Raises ``Misused``."""
    os.environ.update(environment)
    try:
        import_module("webapp.config.settings")
    except ImproperlyConfigured as error:
        raise Misused(str(error)) from error


def main(words: list[str]) -> int:
    """Become the process of that role; an exit code where it cannot."""
    if len(words) != 1 or words[0] not in _COMMANDS:
        roles = "|".join(_COMMANDS)
        print(f"usage: python -m webapp.config.serve {roles}", file=sys.stderr)
        return 2
    role = words[0]
    try:
        environment = environment_of(role, os.environ)
        command = _COMMANDS[role](environment)
        _check_settings(environment)
        if environment.get(METRICS_DIR_NAME):
            fresh_metrics_folder(Path(environment[METRICS_DIR_NAME]))
        os.chdir(BASE_DIR)
        os.execve(command[0], command, environment)  # noqa: S606  No shell.
    except (Misused, OSError) as error:
        print(f"mien: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
