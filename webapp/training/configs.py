"""What a run can be told, with its defaults. Stored with each run as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from webapp.training.errors import RunRefused
from webapp.training.models import Mode


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """How the head is refitted.

    ``curated_weight``: one curated face counts as so many of the base's. ``stay``
    punishes the squared distance from the head that it starts from. With
    ``keep_answers`` the base's faces ask for what the start version says of them,
    so that only the curated faces move it (Li and Hoiem, "Learning without
    Forgetting", 2016); without, for the labels that they came with.
    """

    curated_weight: float = 5.0
    stay: float = 1e-3
    keep_answers: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.curated_weight <= 1000:
            raise RunRefused("curated_weight must lie between 0 and 1000.")
        if not 0 <= self.stay <= 1000:
            raise RunRefused("stay must lie between 0 and 1000.")


@dataclass(frozen=True, slots=True)
class FullConfig:
    """How the whole network goes on learning. ``learning_rate`` is for a batch of
    128; ``faces_per_epoch`` 0 takes all faces of the data."""

    epochs: int = 8
    learning_rate: float = 0.01
    batch_size: int = 128
    faces_per_epoch: int = 0
    curated_weight: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 1000:
            raise RunRefused("epochs must lie between 1 and 1000.")
        if not 0 < self.learning_rate <= 1:
            raise RunRefused("learning_rate must lie between 0 and 1.")
        if not 2 <= self.batch_size <= 4096:
            raise RunRefused("batch_size must lie between 2 and 4096.")
        if self.faces_per_epoch < 0:
            raise RunRefused("faces_per_epoch must not be negative.")
        if not 0 < self.curated_weight <= 1000:
            raise RunRefused("curated_weight must lie between 0 and 1000.")


def parse_config(mode: Mode, given: dict[str, Any] | None) -> HeadConfig | FullConfig:
    """The config of a mode with what was ``given`` in place of defaults.

    Raises ``RunRefused`` with the word that is unknown or out of range.
    """
    kind: type[HeadConfig] | type[FullConfig]
    kind = HeadConfig if mode == Mode.HEAD else FullConfig
    defaults = asdict(kind())
    values: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name not in defaults:
            known = ", ".join(field.name for field in fields(kind))
            raise RunRefused(f"A {mode} run has no setting {name[:40]!r}, but {known}.")
        wanted = type(defaults[name])
        fits = isinstance(value, wanted) or (
            # Of hundreds of digits Python makes no float.
            wanted is float and isinstance(value, int) and abs(value) < 2**63
        )
        if not fits or (wanted is not bool and isinstance(value, bool)):
            raise RunRefused(
                f"{name} must be a {wanted.__name__}, not {repr(value)[:40]}."
            )
        values[name] = wanted(value)
    return kind(**values)
