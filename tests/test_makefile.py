"""What ``make`` hands to what it starts, and how it makes its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.stack import ROOT

ODD = 'it\'s a "folder" & more'


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A checkout whose path a shell would not take as it is."""
    folder = tmp_path / ODD
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def make(folder: Path, *words: str) -> str:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MIEN_", "MAKE", "PORT"))
    }
    result = subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_home_may_have_any_name(odd_folder: Path, tmp_path: Path) -> None:
    python = program(tmp_path / "python", 'echo "$MIEN_HOME $PORT"')
    run = ("-o", "venv", "run", f"PY={python}")

    assert make(odd_folder, *run) == f"{odd_folder}/var 8000\n"
    home = f"{tmp_path}/{ODD}/home"
    assert make(odd_folder, *run, f"MIEN_HOME={home}", "PORT=1") == f"{home} 1\n"


def test_checks_have_a_home_of_their_own(odd_folder: Path, tmp_path: Path) -> None:
    python = program(tmp_path / "python", 'echo "$MIEN_HOME"')
    words = ("-s", "-o", "venv", "types", f"PY={python}")

    for given in ((), ("MIEN_HOME=/srv/mien",)):
        said = make(odd_folder, *words, *given).splitlines()
        assert said[-1] == f"{odd_folder}/build/check"
    assert (odd_folder / "build" / "check").is_dir()


def test_installation_that_failed_is_not_taken_for_done(tmp_path: Path) -> None:
    """Not even once requirements.txt is again what it was before."""
    python = program(
        tmp_path / "venv" / "bin" / "python",
        'case "$*" in *install*) exit 1;; esac',
    )
    marker = python.parent.parent / "requirements.installed"
    marker.write_text("django==5\n")
    (tmp_path / "requirements.txt").write_text("django==6\n")

    def install() -> int:
        return subprocess.run(
            ["sh", str(ROOT / "scripts" / "venv.sh")],
            cwd=tmp_path,
            env={**os.environ, "VENV": "venv"},
            capture_output=True,
        ).returncode

    assert install() == 1
    (tmp_path / "requirements.txt").write_text("django==5\n")
    assert install() == 1
    program(python, "exit 0")
    assert install() == 0
    assert marker.read_text() == "django==5\n"
