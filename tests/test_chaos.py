"""A little of each scenario of ``make chaos``: whatever dies, a promise is kept."""

from __future__ import annotations

import pytest

from tests.chaos.scenarios import SCENARIOS, run


@pytest.mark.timed
@pytest.mark.parametrize(
    "name", [name for name, scenario in SCENARIOS.items() if scenario.short.count]
)
def test_what_was_acknowledged_is_read_once_and_found_again(name: str) -> None:
    print(run(name, SCENARIOS[name].short))
