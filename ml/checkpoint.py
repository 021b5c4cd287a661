"""What a run has reached, on disk: to go on from, to export, to average."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from ml.manifest import write_atomically
from ml.models import FaceNetwork, build_network
from ml.train_config import EpochRecord, TrainConfig, TrainingError, config_from_dict

CHECKPOINT_FILE: Final = "checkpoint.pt"
HISTORY_FILE: Final = "history.json"
CONFIG_FILE: Final = "config.json"


@dataclass(slots=True)
class TrainingResult:
    """The averaged network (on the CPU, ready to export) and its curves.

    Where it is the mean of several runs, config and curves are those of the first,
    and ``averaged_with`` has the configs of the others.
    """

    network: FaceNetwork
    config: TrainConfig
    history: list[EpochRecord]
    averaged_with: tuple[TrainConfig, ...] = ()


def load_result(run_dir: Path) -> TrainingResult:
    """What a run has reached so far; raises ``TrainingError``."""
    saved = read_checkpoint(run_dir)
    if saved is None:
        raise TrainingError(f"{run_dir} holds no {CHECKPOINT_FILE}. Train first.")
    with refusing_damage(run_dir):
        config = config_from_dict(json.loads(saved["config"]))
        network = build_network(config.model)
        network.load_state_dict(saved["average"])
        history = [EpochRecord(**row) for row in json.loads(saved["history"])]
    return TrainingResult(network.eval(), config, history)


def average_runs(run_dirs: Sequence[Path]) -> TrainingResult:
    """One network whose weights are the mean of what several runs have reached.

    Wortsman et al., "Model soups", 2022: it pays where the runs started from the same
    trained weights. The statistics of normalisation are a mean, too, and those of
    another network: ``ml.train.renew_statistics`` measures its own. Raises
    ``TrainingError``, also where their networks differ.
    """
    first, *others = [load_result(run_dir) for run_dir in run_dirs]
    for run_dir, other in zip(run_dirs[1:], others, strict=True):
        if other.config.model != first.config.model:
            raise TrainingError(
                f"{run_dir} holds another network than {run_dirs[0]}: only runs of "
                "one network can be averaged."
            )
    states = [one.network.state_dict() for one in (first, *others)]
    first.network.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
    )
    first.averaged_with = tuple(other.config for other in others)
    return first


def read_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    """What ``write_checkpoint`` wrote, ``None`` where nothing was; raises
    ``TrainingError``."""
    path = run_dir / CHECKPOINT_FILE
    if not path.exists():
        return None
    with refusing_damage(run_dir):
        return dict(torch.load(path, map_location="cpu", weights_only=True))


@contextmanager
def refusing_damage(run_dir: Path) -> Iterator[None]:
    """Whatever a file raises that is no checkpoint of ours becomes one sentence.

    Torch's own words are not passed on: they advise to load the file in the way that
    runs what code it holds.
    """
    try:
        yield
    except Exception as error:  # Zip, pickle and JSON raise what they like.
        raise TrainingError(
            f"{run_dir / CHECKPOINT_FILE} cannot be read: it is damaged, or no "
            "checkpoint of this release. Give another folder, or remove the file to "
            f"start anew. ({type(error).__name__})"
        ) from error


def write_checkpoint(
    run_dir: Path,
    config: TrainConfig,
    origin: dict[str, str],
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[EpochRecord],
    steps: int,
) -> None:
    """All that going on needs, whole or not at all; curves and config beside it are
    for people. ``origin`` are digests of what else the run follows from. Raises
    ``OSError``."""
    rows = json.dumps([asdict(record) for record in history])
    buffer = io.BytesIO()
    torch.save(
        {
            "config": json.dumps(config.to_dict()),
            "origin": json.dumps(origin),
            "history": rows,
            "steps": steps,
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        buffer,
    )
    write_atomically(run_dir / CHECKPOINT_FILE, buffer.getvalue())
    write_atomically(run_dir / HISTORY_FILE, rows.encode())
    write_atomically(
        run_dir / CONFIG_FILE, json.dumps(config.to_dict(), indent=2).encode()
    )
