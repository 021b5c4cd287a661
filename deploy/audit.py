"""Asks for known weaknesses of everything that the images hold: ``make audit``.

pip-audit asks a service on the network. It is fetched for the occasion, pinned, into
the cache of uv, for the site does not need it. A mirror may answer in the service's
place and know of no weakness at all, so a release that is known to be weak is asked
for first. 0: none is known; 1: there are some; 2: it could not be asked.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent / "requirements"
PIP_AUDIT: Final = "pip-audit==2.10.1"
KNOWN_TO_BE_WEAK: Final = "django==3.2.0"
_FOUND: Final = "Fix Versions"
"""The heading of pip-audit's table, which comes with a finding alone."""


def ask(requirements: Path) -> tuple[bool, str]:
    """Whether all was checked, and what was found or why it was not."""
    result = subprocess.run(  # noqa: S603  Words of this file.
        [
            *(sys.executable, "-m", "uv", "tool", "run", "--quiet"),
            *("--from", PIP_AUDIT, "pip-audit", "--progress-spinner", "off"),
            # The files are whole: nothing is resolved or installed.
            *("--disable-pip", "--no-deps", "--strict"),
            *("--requirement", str(requirements)),
        ],
        capture_output=True,
        text=True,
    )
    if result.returncode == 0:
        return True, ""
    if _FOUND in result.stdout:
        return True, result.stdout.strip()
    said = (result.stderr or result.stdout).strip().splitlines()
    return False, said[-1] if said else "no reason given"


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        weak = Path(folder) / "weak.txt"
        weak.write_text(KNOWN_TO_BE_WEAK + "\n", encoding="utf-8")
        checked, found = ask(weak)
    if not checked or not found:
        reason = found or f"it knows of no weakness of {KNOWN_TO_BE_WEAK}"
        print(
            "audit: nothing was checked: the service that knows of weaknesses cannot "
            f"be asked from here ({reason}). Try where PyPI itself can be reached.",
            file=sys.stderr,
        )
        return 2
    worst = 0
    for lock in sorted(FOLDER.glob("*.lock")):
        checked, found = ask(lock)
        if not checked:
            print(f"audit: {lock.stem} was not checked: {found}", file=sys.stderr)
            worst = 2
        elif found:
            print(f"audit: {lock.stem}:\n{found}")
            worst = max(worst, 1)
        else:
            print(f"audit: {lock.stem}: no known weakness")
    return worst


if __name__ == "__main__":
    sys.exit(main())
