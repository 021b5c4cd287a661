"""Commands that read faces, and say how well."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ml.cli.base import (
    DataOption,
    JsonOption,
    Labels,
    ModelOption,
    SplitName,
    check_place,
    finite,
    label_source,
    need_labels,
    source_of,
    warn_of_unreadable,
)
from ml.consensus import NO_LABEL, agreement
from ml.data import (
    DataError,
    FaceSet,
    LabelSource,
    Layout,
    Split,
    find_layout,
    load_split,
    read_annotations,
)
from ml.detection import FaceDetector
from ml.evaluate import (
    EvalReport,
    evaluate_probabilities,
    one_person_accuracy,
    probabilities_of,
)
from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.predict import predict_file
from ml.progress import console, progress_bars
from ml.report import write_report


def predict(
    files: Annotated[list[Path], typer.Argument(help="Photos.")],
    face: Annotated[
        bool, typer.Option("--face", help="Each file is one face: detect none.")
    ] = False,
    model: ModelOption = SHIPPED_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Say the emotion of every face in photos; JSON is one object a line."""
    classifier = EmotionClassifier.load(model)
    detector = None if face else FaceDetector()
    refused = 0
    for path in files:
        answer = predict_file(path, classifier, detector)
        refused += "error" in answer
        if as_json:
            print(json.dumps(answer), flush=True)
        else:
            _print_prediction(answer)
    if refused:
        raise typer.Exit(1)


def _print_prediction(answer: dict[str, Any]) -> None:
    if "error" in answer:
        print(f"{answer['file']}: {answer['error']['message']}")
        return
    if not answer["faces"]:
        print(f"{answer['file']}: no face found")
    if answer["faces_found"] > len(answer["faces"]):
        print(
            f"{answer['file']}: shows {answer['faces_found']} faces; the "
            f"{len(answer['faces'])} largest were read"
        )
    for face in answer["faces"]:
        box = ", ".join(f"{face['box'][side]:.0f}" for side in face["box"])
        label = "not sure" if face["not_sure"] else face["label"]
        shares = "  ".join(
            f"{emotion} {share:.2f}" for emotion, share in face["probabilities"].items()
        )
        print(f"{answer['file']}: [{box}] {label}: {shares}")


def evaluate(
    data: DataOption,
    split: Annotated[SplitName, typer.Option(help="Which part.")] = SplitName.TEST,
    labels: Annotated[
        Labels | None,
        typer.Option(help="Whose labels; consensus where there are votes, if unsaid."),
    ] = None,
    model: ModelOption = SHIPPED_MODEL,
    agreed: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Only faces on which that share of votes agrees.",
        ),
    ] = 0.0,
    as_json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for figures and the report.")
    ] = None,
) -> None:
    """Judge a model on a split: figures with 95 % intervals."""
    classifier = EmotionClassifier.load(model)
    part: Split = split.value
    layout = find_layout(data, [part])
    if out is not None:
        check_place(out, layout)
    if agreed:
        # Asked for, whosoever's labels judge: what is wrong with them is said.
        if layout.annotations is None:
            raise _nobody_voted(part)
        read_annotations(layout.annotations)
    faces, source = _read(classifier, layout, part, labels)
    if agreed:
        if faces.votes is None:
            raise _nobody_voted(part)
        faces = faces.take(agreement(faces.votes) >= agreed)
        if not len(faces):
            raise DataError(
                f"On no face of {part} do so many agree: give a smaller --agreed."
            )
    need_labels(faces, source, part)
    labelled = faces.take(faces.labels(source) != NO_LABEL)
    judged = labelled.labels(source)
    probabilities = probabilities_of(classifier, labelled.crops)
    report = evaluate_probabilities(
        probabilities, judged, classifier.manifest.calibration.not_sure_below
    )
    answer = {
        **report.to_dict(),
        "one_person_accuracy": _one_person(faces),
        "split": part,
        "labels": source,
        "model_version": classifier.manifest.version,
        "unreadable": len(faces.unreadable),
    }
    if as_json:
        print(json.dumps(answer))
    else:
        _print_report(report, f"{part}, {source} labels")
    if out is not None:
        write_report(out, labelled, judged, probabilities, report, answer)
        console.print(f"Wrote {out}", highlight=False, soft_wrap=True)


def _nobody_voted(part: Split) -> DataError:
    return DataError(f"Nobody voted on the faces of {part}: leave --agreed out.")


def _one_person(faces: FaceSet) -> float | None:
    """Where people voted: how well one of them foretells the others."""
    decided = faces.take(faces.consensus != NO_LABEL)
    if decided.votes is None or len(decided) == 0:
        return None
    accuracy = one_person_accuracy(decided.votes)
    return None if math.isnan(accuracy) else round(accuracy, 6)


def _print_report(report: EvalReport, title: str) -> None:
    low, high = report.accuracy_interval
    f1_low, f1_high = report.macro_f1_interval
    table = Table(title=title)
    for heading in ("emotion", "precision", "recall", "F1", "support"):
        table.add_column(heading, justify="left" if heading == "emotion" else "right")
    for name, row in report.per_class.items():
        table.add_row(
            name,
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.f1:.3f}",
            str(row.support),
        )
    right = report.covered_accuracy
    there = "" if right is None else f", right there {right:.4f}"
    console.print(table)
    console.print(
        f"n {report.n}\n"
        f"accuracy {report.accuracy:.4f} ({low:.4f} to {high:.4f})\n"
        f"macro F1 {report.macro_f1:.4f} ({f1_low:.4f} to {f1_high:.4f})\n"
        f"calibration error {report.ece:.4f}\n"
        f"sure of {report.coverage:.1%}{there}\n"
        f"surest 85 % right {report.surest_85_accuracy:.4f}",
        highlight=False,
    )


def _read(
    classifier: EmotionClassifier, layout: Layout, part: Split, labels: Labels | None
) -> tuple[FaceSet, LabelSource]:
    """The faces of a split as the model takes them, and whose labels count."""
    source = label_source(layout, labels)
    with progress_bars() as progress:
        faces = load_split(
            layout, part, classifier.manifest.input, source=source, progress=progress
        )
    warn_of_unreadable(faces)
    return faces, source_of(faces, source, layout)


def _read_labelled(
    model: Path, data: Path, split: SplitName, labels: Labels | None
) -> tuple[EmotionClassifier, FaceSet, LabelSource]:
    """The model, and what ``_read`` gives, of which some has a label."""
    classifier = EmotionClassifier.load(model)
    layout = find_layout(data, [split.value])
    faces, source = _read(classifier, layout, split.value, labels)
    need_labels(faces, source, split.value)
    return classifier, faces, source


def robustness(
    data: DataOption,
    split: Annotated[SplitName, typer.Option(help="Which part.")] = SplitName.TEST,
    labels: Annotated[Labels | None, typer.Option(help="Whose labels.")] = None,
    model: ModelOption = SHIPPED_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Measure what blur, noise, darkness, tilt, distance and compression cost."""
    from ml.robustness import measure_robustness

    classifier, faces, source = _read_labelled(model, data, split, labels)
    losses = measure_robustness(classifier, faces, source)
    if as_json:
        print(json.dumps({name: asdict(loss) for name, loss in losses.items()}))
        return
    table = Table(title=f"{split.value}, {source} labels")
    table.add_column("faces")
    table.add_column("accuracy", justify="right")
    table.add_column("points lost", justify="right")
    for name, loss in losses.items():
        table.add_row(name, f"{loss.accuracy:.4f}", f"{100 * loss.lost:.2f}")
    console.print(table)


def framing(
    data: DataOption,
    split: Annotated[
        SplitName, typer.Option(help="Which part; choices belong to validation.")
    ] = SplitName.VALIDATION,
    labels: Annotated[Labels | None, typer.Option(help="Whose labels.")] = None,
    model: ModelOption = SHIPPED_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Measure which margin around a found face reads best."""
    from ml.framing import measure_framing

    classifier, faces, source = _read_labelled(model, data, split, labels)
    with progress_bars() as progress:
        report = measure_framing(
            classifier,
            faces,
            source,
            sides=(0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3),
            shifts=(-0.05, 0.0, 0.05),
            advance=progress(
                "Finding faces", int((faces.labels(source) != NO_LABEL).sum())
            ),
        )
    if as_json:
        print(json.dumps(asdict(report)))
        return
    table = Table(title=f"{report.found} of {report.faces} faces found again")
    for heading in ("side", "shift down", "accuracy"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        table.add_row(
            f"{row.side_per_face:.2f}", f"{row.shift_down:.2f}", f"{row.accuracy:.4f}"
        )
    console.print(table)
    console.print(
        f"as they lie in the data {report.untouched:.4f}, as served "
        f"{report.served:.4f}; the data ask for a side of {report.side[1]:.3f} "
        f"({report.side[0]:.3f} to {report.side[2]:.3f}), centre "
        f"({report.centre[0]:.3f}, {report.centre[1]:.3f})",
        highlight=False,
        soft_wrap=True,
    )
