"""Photographs to try where somebody has none at hand: public domain, and shipped by
packages that the project needs anyway."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Example:
    """A photograph, with what is to be said of it."""

    name: str
    title: str
    credit: str
    package: str
    path: str

    def read(self) -> bytes:
        """The file's bytes; ``FileNotFoundError`` where the package is missing."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the package {self.package} is missing")
        return (Path(spec.submodule_search_locations[0]) / self.path).read_bytes()


EXAMPLES: Final = (
    Example(
        "collins",
        "Eileen Collins",
        "Astronaut Eileen Collins, NASA, public domain",
        "skimage",
        "data/astronaut.png",
    ),
    Example(
        "hopper",
        "Grace Hopper",
        "Commodore Grace M. Hopper, US Navy, public domain",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
    ),
)


def available_examples() -> list[Example]:
    """Those whose package is here: an image that only serves lacks some."""
    return [
        example for example in EXAMPLES if importlib.util.find_spec(example.package)
    ]


def get_example(name: str) -> Example | None:
    found = (example for example in available_examples() if example.name == name)
    return next(found, None)
