"""What the README claims is what is there."""

from __future__ import annotations

import json
import re

import pytest

from tests.readme import MANIFEST, README, with_figures
from tests.stack import ROOT


def test_figures_are_those_of_the_champion_that_ships() -> None:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")

    assert text == with_figures(text, manifest), "run: python -m tests.readme"


def test_every_file_that_it_names_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)

    assert linked
    assert named
    missing = [name for name in linked + named if not (ROOT / name).exists()]
    assert missing == []


@pytest.mark.parametrize("target", ["run", "test"])
def test_its_commands_are_targets(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert f"make {target}" in README.read_text(encoding="utf-8")
