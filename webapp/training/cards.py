"""The model card of a version, made from its manifest and from the run that made it.

Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from webapp.photos.selectors import EMOTION_WORDS
from webapp.registry.models import ModelVersion
from webapp.training.models import TrainingRun
from webapp.training.selectors import VersionRow
from webapp.training.templatetags.training_figures import interval, percent

_SETS: Final = {
    "test": "Test faces",
    "validation": "Validation faces",
    "frozen_evaluation": "The frozen evaluation set",
    "curated_hold_out": "The curated hold-out",
}
_SOURCES: Final = {
    "consensus": "what most people said",
    "folder": "one noisy opinion, the data set's own folder",
}

_LIMITS: Final = (
    "It reads how a face looks in one picture, not what a person feels. The same look "
    "can mean different things in different people, places and moments.",
    "It knows four words: happy, sad, surprised, neutral. Every other expression is "
    "pressed into one of them, or comes out as “not sure”.",
    "It learned from labels of people, with their habits and blind spots. How it does "
    "for people of different age, sex, skin or culture was not measured, for nobody "
    "is asked for these.",
    "Small, blurred, dark, tilted and half-hidden faces are read worse; the hints "
    "beside a face say which of these it is.",
)

_MEANT_FOR: Final = (
    "Showing people what a model makes of a face in a photo that they chose "
    "themselves, and learning about such models.",
    "Research on labels, calibration and retraining.",
)

_BANNED: Final = (
    "Inferring emotions of people at work or in education. The EU AI Act (Regulation "
    "2024/1689), article 5(1)(f), forbids that, save for medical or safety reasons.",
    "Decisions about people: hiring, marks, credit, insurance, policing, migration, "
    "access to anything.",
    "Detecting lies, intent, illness or danger; it measures none of these.",
    "Reading people who do not know of it. Where the law allows it at all, the EU AI "
    "Act, article 50(3), asks that they are told.",
)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are to be read; the first column names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    version: str
    sections: tuple[Section, ...]

    def to_markdown(self) -> str:
        """The card as a file of its own."""
        lines = [f"# Model card: {self.version}", ""]
        for section in self.sections:
            lines += [f"## {section.title}", ""]
            lines += [f"- {line}" for line in section.lines]
            if section.lines:
                lines.append("")
            for table in section.tables:
                lines += [f"{table.caption}:", "", *_markdown(table), ""]
        return "\n".join(lines).rstrip() + "\n"


def model_card(*, row: VersionRow) -> ModelCard:
    """What a person must know of a version before using it."""
    model_version, run = row.version, row.run
    manifest = model_version.manifest
    measured = list(_measured(manifest.get("metrics", {})))
    return ModelCard(
        model_version.version,
        (
            Section("What it is", tuple(_identity(model_version))),
            Section("Data", *_data(row)),
            Section(
                "Measured",
                ("Intervals hold with 95 %.",)
                if measured
                else ("Nothing was measured before this version was registered.",),
                tuple(measured),
            ),
            *_slices(run),
            *_gate(run),
            Section("Limits", _LIMITS),
            Section("What it is meant for", _MEANT_FOR),
            Section("What it must not be used for", _BANNED),
        ),
    )


def _identity(model_version: ModelVersion) -> Iterator[str]:
    manifest = model_version.manifest
    size = manifest.get("input", {})
    calibration = manifest.get("calibration", {})
    parent = model_version.parent
    yield f"Architecture {manifest.get('architecture', 'not known')}, ONNX."
    if size:
        colour = "grey" if size.get("channels") == 1 else "colour"
        side = size.get("size_px")
        yield f"Takes one {colour} face of {side} x {side} pixels."
    yield (
        "Says how likely happy, sad, surprised and neutral are. Under the EU AI Act it "
        "may count as an emotion recognition system."
    )
    if calibration:
        yield (
            f"Logits are divided by a temperature of {calibration['temperature']:g}; "
            f"below {percent(calibration['not_sure_below'])} it says “not sure”."
        )
    yield f"Made from {parent.version}." if parent else "Made from no other version."
    yield f"SHA-256 {model_version.sha256}."


def _data(row: VersionRow) -> tuple[tuple[str, ...], tuple[Table, ...]]:
    trained = row.version.manifest.get("training", {})
    again = trained.get("retraining")
    if not again:
        labels = trained.get("labels", "not known")
        epochs = trained.get("epochs_done")
        lines = [f"Trained before it was registered here, labels: {labels}."]
        if epochs:
            lines.append(f"{epochs} epochs.")
        return tuple(lines), ()
    snapshot = again["snapshot"]
    counts, base = snapshot["counts"], snapshot["base"]
    kind = "features of the base" if base["kind"] == "features" else "the data folder"
    lines = [
        f"Run {again['number']}, a {again['mode']} run from {again['start']}, seed "
        f"{again['seed']}; judged against {again['judged_against']}.",
        f"Data set {snapshot['number']}, SHA-256 {snapshot['sha256']}.",
        f"Joined with {kind}: {base['train']} faces to train on, "
        f"{base['evaluation']} to judge by.",
        f"Curated faces come from {counts['photos']} photos whose visitors agreed; "
        "labels are what most people said who did not see the model's answer, or what "
        "an adjudicator decided where they disagreed.",
    ]
    if row.gone_faces:
        lines.append(
            f"{row.gone_faces} of the faces that it learned from may not be used any "
            "more."
        )
    rows = tuple(
        (word, str(counts["train"][code]), str(counts["evaluation"][code]))
        for code, word in EMOTION_WORDS.items()
    )
    table = Table("Curated faces", ("emotion", "train", "judge"), rows)
    return tuple(lines), (table,)


def _measured(metrics: dict[str, Any]) -> Iterator[Table]:
    for name, by_source in metrics.items():
        if not isinstance(by_source, dict):
            continue
        for source, report in by_source.items():
            if not isinstance(report, dict) or "per_class" not in report:
                continue
            of = _SETS.get(name, name.replace("_", " "))
            against = _SOURCES.get(source, source)
            intervals = report.get("intervals", {})
            yield Table(
                f"{of} against {against}",
                ("figure", "value", "95 % interval"),
                (
                    ("faces", str(report["n"]), ""),
                    (
                        "accuracy",
                        percent(report["accuracy"]),
                        interval(intervals.get("accuracy")),
                    ),
                    (
                        "macro F1",
                        percent(report["macro_f1"]),
                        interval(intervals.get("macro_f1")),
                    ),
                    ("calibration error", percent(report["ece"]), ""),
                    ("is sure of", percent(report["coverage"]), ""),
                    ("right on those", percent(report["covered_accuracy"]), ""),
                ),
            )
            yield Table(
                f"{of}, by emotion",
                ("emotion", "precision", "recall", "F1", "faces"),
                tuple(
                    (
                        EMOTION_WORDS.get(code, code),
                        percent(row["precision"]),
                        percent(row["recall"]),
                        percent(row["f1"]),
                        str(row["support"]),
                    )
                    for code, row in report["per_class"].items()
                ),
            )


def _slices(run: TrainingRun | None) -> Iterator[Section]:
    rows = run.report.get("slices", []) if run else []
    if rows:
        yield Section(
            "Kinds of faces",
            ("Share that it read right, of the faces that judge.",),
            (
                Table(
                    "By kind",
                    ("kind", "faces", "right"),
                    tuple(
                        (row["name"], str(row["faces"]), percent(row["candidate"]))
                        for row in rows
                    ),
                ),
            ),
        )


def _gate(run: TrainingRun | None) -> Iterator[Section]:
    if run is not None and run.outcome:
        reasons = [finding["reason"] for finding in run.decision["findings"]]
        against = f"{run.outcome.capitalize()}, against {run.parent.version}."
        yield Section("What the gate said", (against, *reasons, *run.decision["notes"]))


def _markdown(table: Table) -> Iterator[str]:
    for row in (table.head, ("---",) * len(table.head), *table.rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
