"""Asks for known weaknesses of everything that the images hold: ``make audit``.

pip-audit asks a service on the network. It is fetched for the occasion, pinned, into
the cache of uv, for the site does not need it. 0: none is known; 1: there are some, or
it could not be asked, and which of the two it was is said.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent / "requirements"
PIP_AUDIT: Final = "pip-audit==2.10.1"


def main() -> int:
    worst = 0
    for lock in sorted(FOLDER.glob("*.lock")):
        result = subprocess.run(  # noqa: S603  Words of this file.
            [
                *(sys.executable, "-m", "uv", "tool", "run", "--quiet"),
                *("--from", PIP_AUDIT, "pip-audit", "--progress-spinner", "off"),
                # The lock is whole and hashed: nothing is resolved or installed.
                *("--require-hashes", "--disable-pip", "--requirement", str(lock)),
            ],
            capture_output=True,
            text=True,
        )
        told = result.stdout.strip()
        if result.returncode == 0:
            print(f"audit: {lock.stem}: no known weakness")
        elif "Known Vulnerabilities" in told or "Fix Versions" in told:
            print(f"audit: {lock.stem}:\n{told}")
            worst = 1
        else:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            print(
                f"audit: {lock.stem} was NOT checked: the service cannot be asked "
                f"from here ({reason})",
                file=sys.stderr,
            )
            worst = 1
    return worst


if __name__ == "__main__":
    sys.exit(main())
