"""What every test of every room stands on: a broker of the session's own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from webapp.config import broker
from webapp.config.processes import ProcessGroup


@pytest.fixture(scope="session", autouse=True)
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Valkey on a socket, unless ``MIEN_BROKER_URL`` names another."""
    if "MIEN_BROKER_URL" in os.environ:
        yield
        return
    folder = tmp_path_factory.mktemp("broker")
    path = Path(os.environ["MIEN_HOME"]) / "valkey.sock"
    log = folder / "log"
    group = ProcessGroup()
    with log.open("wb") as output:
        server = subprocess.Popen(
            broker.server_command(broker.find_server(), folder, path),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=broker.server_environment(),
            process_group=group.id,
        )
    try:
        deadline = time.monotonic() + 120
        while not broker.answers(path):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.exit(f"The broker did not start:\n{log.read_text()}", 1)
            time.sleep(0.01)
        yield
    finally:
        group.kill()
        server.wait()
