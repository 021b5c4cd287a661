"""Production's processes and settings on one machine, without Docker.

``make prod-local`` runs this: PostgreSQL, Redis with its append-only file and an S3
stand-in (moto's server), two web processes and three workers beside training and beat,
secrets from files, no demo. Data ends with it: it is a rehearsal.

Without a proxy there is no TLS here, so a browser gets plain HTTP (``MIEN_HTTPS=0``);
the tests leave it on and speak as the proxy would.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.installing import Unavailable
from tests.services import Services, install_missing
from tests.stack import ROOT

WEB_PROCESSES: Final = 2
WORKERS: Final = 3
METRICS_TOKEN: Final = "MIEN_METRICS_TOKEN"

AS_THE_PROXY: Final = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "198.51.100.7",
}
"""What Caddy adds to a request that came by TLS."""


def secret_files(folder: Path, values: dict[str, str]) -> dict[str, str]:
    """Each value in a file of its own; the variables that name the files."""
    folder.mkdir(mode=0o700)
    variables = {}
    for name, value in values.items():
        path = folder / name.lower()
        path.touch(mode=0o600)
        path.write_text(value + "\n", encoding="utf-8")
        variables[f"{name}_FILE"] = str(path)
    return variables


@contextmanager
def production(folder: Path) -> Iterator[dict[str, str]]:
    """The services of production below ``folder``; the variables of its processes.

    Raises ``Unavailable``.
    """
    install_missing()
    # PostgreSQL's user must get to its own folder below.
    folder.chmod(0o711)
    services = Services(folder)
    try:
        addresses = services.start()
        del addresses["MIEN_CACHE_URL"]  # It stands beside the broker by itself.
        addresses |= services.start_store()
        keys = {
            "MIEN_SECRET_KEY": secrets.token_urlsafe(50),
            METRICS_TOKEN: secrets.token_urlsafe(32),
        }
        yield {
            **secret_files(folder / "secrets", addresses | keys),
            "MIEN_DEMO": "0",
            "MIEN_ALLOWED_HOSTS": "127.0.0.1,localhost",
            "MIEN_BEHIND_TLS_PROXY": "1",
            "MIEN_NUM_PROXIES": "1",
            "MIEN_WEB_PROCESSES": str(WEB_PROCESSES),
            "MIEN_INFERENCE_WORKERS": str(WORKERS),
            "MIEN_WORKER_PROCESSES": "1",
        }
    finally:
        services.stop()


def main() -> int:
    """Run until Ctrl-C; 0, or 1 with a sentence that says what to do."""
    # The supervisor below ends by itself and in order; we only wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with tempfile.TemporaryDirectory(prefix="mien-production-") as name:
            folder = Path(name)
            with production(folder) as variables:
                variables |= {
                    "MIEN_HOME": str(folder / "home"),
                    "MIEN_HTTPS": os.environ.get("MIEN_HTTPS", "0"),
                    "MIEN_NUM_PROXIES": os.environ.get("MIEN_NUM_PROXIES", "0"),
                }
                shell = folder / "environment"
                shell.write_text(
                    "".join(
                        f"export {name}={shlex.quote(value)}\n"
                        for name, value in variables.items()
                    ),
                    encoding="utf-8",
                )
                print(
                    f"production: for manage.py beside it, first: . {shell}", flush=True
                )
                return subprocess.run(
                    [sys.executable, "-m", "webapp.config.embedded"],
                    cwd=ROOT,
                    env={**os.environ, **variables},
                    restore_signals=True,
                ).returncode
    except Unavailable as error:
        print(f"production: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
