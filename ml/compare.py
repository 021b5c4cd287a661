"""All networks under one budget -> one table and its figures.

Each entry gets the same minutes. How many epochs those are is measured once and
written down, so that a comparison that was stopped goes on with the same plan, and
the same plan gives the same numbers. A folder that holds a comparison of other data or
settings is refused.
"""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ml import figures
from ml.data import DataError, FaceSet, LabelSource
from ml.export import export_result
from ml.inference import EmotionClassifier
from ml.manifest import sha256_of, write_atomically
from ml.models import ModelConfig, build_network
from ml.starting import StartError, start_from
from ml.train import check_faces, train
from ml.train_config import EpochRecord, TrainConfig, TrainingError

PLAN_FILE: Final = "plan.json"
RESULT_FILE: Final = "result.json"
MODEL_FILE: Final = "model.onnx"
LOCK_FILE: Final = "lock"

_TRIAL_BATCHES: Final = 4
_TIMED_FACES: Final = 60
_MIN_EPOCHS: Final = 3
"""A cosine over fewer epochs says little: heavy networks get shorter epochs."""
PRETRAINED_RATE: Final = 0.01
"""What pretrained weights know does not survive the rate that random ones need."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One network of the comparison."""

    architecture: str
    channels: int = 1
    weights: Path | None = None

    @property
    def name(self) -> str:
        colour = "grey" if self.channels == 1 else "rgb"
        start = "-pretrained" if self.weights else ""
        return f"{self.architecture}-{colour}{start}"


DEFAULT_ENTRIES: Final = (
    Entry("base"),
    Entry("base", 3),
    Entry("larger"),
    Entry("vgg16"),
    Entry("resnet"),
    Entry("efficientnet"),
    Entry("complex"),
    Entry("final"),
    Entry("final", 3),
    Entry("recognition"),
    Entry("mobile"),
)


def compare(
    entries: Sequence[Entry],
    load: Callable[[int], tuple[FaceSet, FaceSet, FaceSet, LabelSource]],
    out: Path,
    *,
    budget_minutes: float,
    base: TrainConfig,
    say: Callable[[str], None],
) -> str:
    """Train and judge every entry that has no result yet; write the table, and
    return it as Markdown.

    ``load(channels)`` gives train, validation and test, and whose labels judge.
    ``base`` decides all but network, epochs and batch. Raises ``DataError`` where
    ``out`` holds results of other data or settings, and where two entries would have
    one name, and so one folder; ``ValueError`` where there is no such network;
    ``TrainingError``; ``OSError`` where weights to start from cannot be read.
    """
    names = Counter(entry.name for entry in entries)
    if twice := [name for name, count in names.items() if count > 1]:
        raise DataError(
            f"{', '.join(twice)} would stand twice in the table, under one name. "
            "Compare one at a time, each in a folder of its own (--out)."
        )
    # A wrong name among them is told before the first is trained.
    starts: dict[str, str] = {}
    for entry in entries:
        ModelConfig(architecture=entry.architecture, channels=entry.channels)
        weights = entry.weights
        starts[entry.name] = sha256_of(weights.read_bytes()) if weights else ""
    seconds = budget_minutes * 60 / len(entries)
    done: dict[str, dict[str, Any]] = {}

    def rows() -> list[dict[str, Any]]:
        return [done[entry.name] for entry in entries if entry.name in done]

    with ExitStack() as stack:
        # One set of pictures in memory at a time, and each read once.
        for channels in dict.fromkeys(entry.channels for entry in entries):
            train_faces, validation, test, source = load(channels)
            check_faces(train_faces, validation)
            # Not before the data was read: what is refused then writes nothing.
            if not done:
                _check_starts(entries, train_faces)
                stack.enter_context(_alone(out))
            data = [faces.digest() for faces in (train_faces, validation, test)]
            for entry in entries:
                if entry.channels != channels:
                    continue
                folder = out / entry.name
                result_path = folder / RESULT_FILE
                basis = _basis(starts[entry.name], base, data, seconds, source)
                config = _planned(entry, base, train_faces, folder, seconds, basis)
                if result_path.is_file():
                    done[entry.name] = json.loads(result_path.read_text())
                    say(f"{entry.name}: done before")
                    continue
                say(
                    f"{entry.name}: {config.epochs} epochs of "
                    f"{config.faces_per_epoch or len(train_faces)} faces"
                )
                row = _run(
                    entry, config, train_faces, validation, test, folder, source, say
                )
                write_atomically(result_path, json.dumps(row, indent=1).encode())
                done[entry.name] = row
                _write_table(out, rows(), source)
        return _write_table(out, rows(), source)


def _check_starts(entries: Sequence[Entry], faces: FaceSet) -> None:
    """Fill each network that starts from a file, once: what is wrong with one is told
    before the hours that those before it take. Raises ``TrainingError``."""
    few = faces.take(np.arange(min(len(faces), 2)))
    for entry in entries:
        if entry.weights is None:
            continue
        config = ModelConfig(
            entry.architecture, channels=entry.channels, outputs=faces.targets.shape[1]
        )
        network = build_network(config)
        seen = replace(few, crops=np.repeat(few.crops[..., :1], entry.channels, axis=3))
        try:
            start_from(network, config, [entry.weights], seen)
        except StartError as error:
            raise TrainingError(f"{entry.name}: {error}") from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two that write into one folder would find each other's half-done runs. Raises
    ``DataError`` where another one does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"Another comparison writes into {out}. Wait for its end, or give "
                "another --out."
            ) from error
        yield


def _basis(
    start: str,
    base: TrainConfig,
    data: Sequence[str],
    seconds: float,
    source: LabelSource,
) -> dict[str, Any]:
    """What a result holds for: another basis makes another one."""
    return {
        "data": list(data),
        "labels": source,
        "seed": base.seed,
        # To the second: the same share of a larger budget for more networks.
        "seconds": round(seconds),
        "start": start,
    }


def _planned(
    entry: Entry,
    base: TrainConfig,
    faces: FaceSet,
    folder: Path,
    seconds: float,
    basis: dict[str, Any],
) -> TrainConfig:
    """The entry's config with as many epochs as the time allows."""
    config = replace(
        base,
        model=ModelConfig(
            architecture=entry.architecture,
            channels=entry.channels,
            outputs=faces.targets.shape[1],
        ),
        learning_rate=PRETRAINED_RATE if entry.weights else base.learning_rate,
    )
    plan_path = folder / PLAN_FILE
    if plan_path.is_file():
        plan = json.loads(plan_path.read_text())
        if plan.get("basis") != basis:
            raise DataError(
                f"{folder} holds a comparison of other data, labels, weights, seed or "
                "budget. Give another --out."
            )
    else:
        per_face = _seconds_per_face(config, faces, folder)
        affordable = seconds * 0.9 / per_face
        epochs = max(_MIN_EPOCHS, math.floor(affordable / len(faces)))
        plan = {
            "epochs": epochs,
            "faces_per_epoch": max(
                config.batch_size, min(len(faces), math.floor(affordable / epochs))
            ),
            "seconds_per_face": per_face,
            "basis": basis,
        }
        write_atomically(plan_path, json.dumps(plan).encode())
    return replace(
        config, epochs=plan["epochs"], faces_per_epoch=plan["faces_per_epoch"]
    )


def _seconds_per_face(config: TrainConfig, faces: FaceSet, folder: Path) -> float:
    """Measured on a few batches: in the middle of three epochs, for the first warms up
    and the last takes the statistics anew (``ml.train``), once a run however long. The
    last is never begun."""
    few = faces.take(np.arange(min(len(faces), _TRIAL_BATCHES * config.batch_size)))
    trial = folder / "trial"
    # Of one that was stopped nothing is of use.
    shutil.rmtree(trial, ignore_errors=True)
    records: list[EpochRecord] = []
    timed = train(
        replace(config, epochs=3),
        few,
        few.take(np.arange(1)),
        trial,
        on_epoch=records.append,
        stop=lambda: len(records) == 2,
    )
    shutil.rmtree(trial)
    return timed.history[-1].duration_seconds / len(few)


def _run(
    entry: Entry,
    config: TrainConfig,
    train_faces: FaceSet,
    validation: FaceSet,
    test: FaceSet,
    folder: Path,
    source: LabelSource,
    say: Callable[[str], None],
) -> dict[str, Any]:
    def on_epoch(record: EpochRecord) -> None:
        say(
            f"{entry.name}: epoch {record.epoch}/{config.epochs}, accuracy "
            f"{record.validation_accuracy:.4f}"
        )

    result = train(
        config,
        train_faces,
        validation,
        folder,
        on_epoch=on_epoch,
        pretrained=[entry.weights] if entry.weights else (),
    )
    model_path = folder / MODEL_FILE
    manifest = export_result(
        result,
        model_path,
        validation,
        version=entry.name,
        source=source,
        measured_on={"test": test},
    )
    parameters = sum(value.numel() for value in result.network.parameters())
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "channels": entry.channels,
        "start": "pretrained" if entry.weights else "from scratch",
        "parameters": parameters,
        "size_bytes": manifest.size_bytes,
        "ms_per_face": round(milliseconds_per_face(model_path), 3),
        "epochs": config.epochs,
        "faces_per_epoch": config.faces_per_epoch or len(train_faces),
        "training_seconds": round(sum(r.duration_seconds for r in result.history), 1),
        "history": [asdict(record) for record in result.history],
        "metrics": manifest.metrics,
    }


def milliseconds_per_face(model_path: Path) -> float:
    """Median time of one face alone on one thread, normalisation included."""
    classifier = EmotionClassifier.load(model_path)
    spec = classifier.manifest.input
    shape = (1, spec.size_px, spec.size_px, spec.channels)
    face = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    times = []
    for _ in range(_TIMED_FACES):
        started = time.perf_counter()
        classifier.read_crops(face)
        times.append(time.perf_counter() - started)
    return float(np.median(times[10:]) * 1000)


def _write_table(out: Path, rows: list[dict[str, Any]], source: LabelSource) -> str:
    """Table and figures into ``out``; returns the table."""
    table = _markdown(rows, source)
    write_atomically(out / "table.json", json.dumps(rows, indent=1).encode())
    write_atomically(out / "table.md", table.encode())
    chosen = {row["name"]: _judged(row, source) for row in rows}
    drawn = {
        "accuracy": figures.bars(
            {
                name: (values["accuracy"], tuple(values["intervals"]["accuracy"]))
                for name, values in chosen.items()
            },
            f"Accuracy on test, {source} labels",
            "accuracy with its 95 % interval",
        ),
        "curves": figures.curves({row["name"]: row["history"] for row in rows}),
        "confusion": figures.confusion(
            {name: values["confusion"] for name, values in chosen.items()}
        ),
    }
    for name, figure in drawn.items():
        write_atomically(out / f"{name}.png", figures.to_png(figure))
    return table


def _markdown(rows: Sequence[dict[str, Any]], source: LabelSource) -> str:
    """One line a network."""
    lines = [
        "| network | start | parameters | MB | ms a face | epochs | accuracy "
        "| macro F1 | calibration error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = _judged(row, source)
        low, high = values["intervals"]["accuracy"]
        lines.append(
            f"| {row['name']} | {row['start']} | {row['parameters'] / 1e6:.2f} M "
            f"| {row['size_bytes'] / 1e6:.1f} | {row['ms_per_face']:.2f} "
            f"| {row['epochs']} x {row['faces_per_epoch']} "
            f"| {values['accuracy']:.4f} ({low:.4f} to {high:.4f}) "
            f"| {values['macro_f1']:.4f} | {values['ece']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def _judged(row: dict[str, Any], source: LabelSource) -> dict[str, Any]:
    return dict(row["metrics"]["test"][source])
