"""``make chaos``: every scenario, or the one that is named, and what came of it."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from dataclasses import replace

from tests.chaos.scenarios import SCENARIOS, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("scenario", nargs="?", default="all")
    parser.add_argument("--count", type=int, default=0, help="photos (default: 2000)")
    parser.add_argument("--kills", type=int, default=0, help="default: as many as said")
    options = parser.parse_args()
    # Tidily, so that the small disk is unmounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = list(SCENARIOS) if options.scenario == "all" else [options.scenario]
    unknown = set(names) - set(SCENARIOS)
    if unknown:
        print(f"There is no scenario {', '.join(unknown)}: {', '.join(SCENARIOS)}")
        return 2
    failed = 0
    for name in names:
        size = SCENARIOS[name].full
        size = replace(
            size,
            count=options.count or size.count,
            kills=min(options.kills or size.kills, size.kills),
        )
        started_at = time.monotonic()
        try:
            told = run(name, size)
        except AssertionError as error:
            told, failed = f"FAILED: {error}", failed + 1
        seconds = time.monotonic() - started_at
        print(f"{name:8} {seconds:5.0f} s  {told}", flush=True)
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the end")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
