"""``python -m ml``: what can be done from a terminal.

What machines read goes to standard output, what people read to the error stream.
A mistake in what was given ends with a sentence and exit code 2, never with a
traceback. Torch is imported by the commands that train, and by no other.
"""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table

from ml import figures
from ml.consensus import NO_LABEL, agreement
from ml.data import (
    DataError,
    FaceSet,
    LabelSource,
    Layout,
    Split,
    find_layout,
    load_for_training,
    load_split,
)
from ml.detection import FaceDetector
from ml.evaluate import EvalReport, evaluate_model, one_person_accuracy
from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import (
    InputSpec,
    ManifestError,
    ModelFileError,
    write_atomically,
)
from ml.predict import predict_file
from ml.progress import console, progress_bars
from ml.report import write_report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clean data, train, compare and judge models, read faces.",
)

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="FER_DATASET_DIR",
        help="Folder with train, validation and test.",
    ),
]
ModelOption = Annotated[
    Path, typer.Option("--model", help="ONNX file with its manifest beside it.")
]
MAX_THREADS = 4 * (os.cpu_count() or 1)
"""Thousands on two cores get nowhere, without a word."""
ThreadsOption = Annotated[
    int,
    typer.Option(min=0, max=MAX_THREADS, help="For the network; 0 leaves it to torch."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class SplitName(StrEnum):
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Labels(StrEnum):
    FOLDER = "folder"
    CONSENSUS = "consensus"


class JudgeName(StrEnum):
    MODEL = "model"
    FOLDS = "folds"


class Flip(StrEnum):
    AUTO = "auto"
    YES = "yes"
    NO = "no"


class Augmentation(StrEnum):
    STRONG = "strong"
    MILD = "mild"
    NONE = "none"


def main() -> None:
    """The entry point: errors that a person can mend become sentences."""
    try:
        app()
    except (DataError, ManifestError, ModelFileError, ValueError) as error:
        _fail(str(error))
    except OSError as error:
        # A folder that is a file or may not be written to, a full disk.
        reason = error.strerror or str(error)
        _fail(
            f"{error.filename} cannot be used: {reason}." if error.filename else reason
        )
    except KeyboardInterrupt:
        _fail("Stopped.")


def _say_next(wrote: Path, command: str) -> None:
    # In one line: it is to be copied.
    console.print(f"Wrote {wrote}. Next: python -m ml {command}", soft_wrap=True)


def _fail(sentence: str) -> NoReturn:
    console.print("error:", style="bold red", end=" ")
    console.print(sentence, highlight=False, soft_wrap=True)
    sys.exit(2)


@app.command()
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
    for face in answer["faces"]:
        box = ", ".join(f"{face['box'][side]:.0f}" for side in face["box"])
        label = "not sure" if face["not_sure"] else face["label"]
        shares = "  ".join(
            f"{emotion} {share:.2f}" for emotion, share in face["probabilities"].items()
        )
        print(f"{answer['file']}: [{box}] {label}: {shares}")


@app.command()
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
            min=0, max=1, help="Only faces on which that share of votes agrees."
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
    source = _source(layout, labels)
    with progress_bars() as progress:
        faces = load_split(
            layout, part, classifier.manifest.input, source=source, progress=progress
        )
    _warn_of_unreadable(faces)
    if agreed and faces.votes is not None:
        faces = faces.take(agreement(faces.votes) >= agreed)
    report = evaluate_model(classifier, faces, source)
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
        write_report(out, classifier, faces, source, report)
        console.print(f"Wrote {out}")


def _one_person(faces: FaceSet) -> float | None:
    """Where people voted: how well one of them foretells the others."""
    decided = faces.take(faces.consensus != NO_LABEL)
    if decided.votes is None or len(decided) == 0:
        return None
    accuracy = one_person_accuracy(decided.votes)
    return None if math.isnan(accuracy) else round(accuracy, 6)


def _source(layout: Layout, labels: Labels | None) -> LabelSource:
    if labels is None:
        return "consensus" if layout.annotations is not None else "folder"
    if labels is Labels.CONSENSUS and layout.annotations is None:
        console.print("There are no annotations: the folders' labels are used.")
        return "folder"
    return labels.value


def _warn_of_unreadable(faces: FaceSet) -> None:
    if faces.unreadable:
        name, reason = faces.unreadable[0]
        console.print(
            f"{len(faces.unreadable)} files were left out; the first, {name}: {reason}",
            highlight=False,
        )


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
    console.print(table)
    console.print(
        f"n {report.n}\n"
        f"accuracy {report.accuracy:.4f} ({low:.4f} to {high:.4f})\n"
        f"macro F1 {report.macro_f1:.4f} ({f1_low:.4f} to {f1_high:.4f})\n"
        f"calibration error {report.ece:.4f}\n"
        f"sure of {report.coverage:.1%}, right there {report.covered_accuracy:.4f}\n"
        f"surest 85 % right {report.surest_85_accuracy:.4f}",
        highlight=False,
    )


@app.command()
def eda(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for page and figures.")] = Path(
        "mien-eda"
    ),
) -> None:
    """Show what a data set holds: counts, brightness, mean faces, duplicates."""
    from ml.eda import explore

    layout = find_layout(data)
    _refuse_inside(out, layout)
    with progress_bars() as progress:
        summary = explore(layout, out, progress)
    table = Table(title="pictures")
    for heading in ("split", *EMOTIONS):
        table.add_column(heading)
    for split, row in summary["counts"].items():
        table.add_row(split, *(str(count) for count in row.values()))
    console.print(table)
    console.print(f"Wrote {out / 'index.html'}")


@app.command()
def clean(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for report and manifest.")] = Path(
        "mien-clean"
    ),
    model: ModelOption = SHIPPED_MODEL,
    judge: Annotated[
        JudgeName,
        typer.Option(
            help="Who judges labels without votes: the model itself, or heads fitted "
            "on its features by folds."
        ),
    ] = JudgeName.MODEL,
    votes: Annotated[bool, typer.Option(help="Use annotations, if any.")] = True,
    detect: Annotated[bool, typer.Option(help="Look for a face in each.")] = True,
) -> None:
    """Find what is wrong with a folder of faces; write report and cleaned manifest."""
    from ml.cleaning import clean as clean_folder
    from ml.cleaning import measure_suspicion
    from ml.cleaning_report import write_cleaning

    layout = find_layout(data)
    _refuse_inside(out, layout)
    classifier = EmotionClassifier.load(model)
    with progress_bars() as progress:
        result = clean_folder(
            layout,
            classifier,
            FaceDetector() if detect else None,
            judge=judge.value,
            use_votes=votes,
            progress=progress,
        )
    write_cleaning(out, result)
    table = Table(title="findings")
    table.add_column("finding")
    table.add_column("files", justify="right")
    for kind, count in result.counts().items():
        table.add_row(kind.value, str(count))
    console.print(table)
    if not votes:
        for split, found in measure_suspicion(result, layout).items():
            console.print(
                f"{split}, judged by the votes: {found.wrong} of {found.faces} labels "
                f"are wrong; AUROC {found.auroc:.3f}, of the first 500 "
                f"{found.precision_of_first_500:.1%} are; of {found.suspects} called "
                f"suspect {found.precision:.1%}, which are {found.recall:.1%} of them",
                highlight=False,
                soft_wrap=True,
            )
    _say_next(out, f"train --manifest {out}/cleaned.csv")


def _refuse_inside(out: Path, layout: Layout) -> None:
    """What is written must not lie among the user's pictures."""
    if out.resolve().is_relative_to(layout.images.resolve()):
        raise DataError(f"{out} lies inside the data set. Choose another --out.")


@app.command()
def train(
    run: Annotated[Path, typer.Option(help="Folder for checkpoint and curves.")],
    data: DataOption,
    architecture: Annotated[str, typer.Option(help="One of the zoo.")] = "final",
    channels: Annotated[int, typer.Option(help="1 grey, 3 RGB.")] = 1,
    labels: Annotated[Labels | None, typer.Option(help="What to aim at.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="A cleaned manifest, from ml clean.")
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Start from a run's checkpoint, an exported model, torchvision's or "
            "dlib's file or faceres.json; a network of two bodies takes two."
        ),
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="ONNX file of a model to learn from, too; may be repeated."),
    ] = None,
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, help="How much the teachers' word counts.")
    ] = 0.5,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(min=1e-6)] = 0.1,
    warmup: Annotated[
        float, typer.Option(min=0, help="Epochs in which the rate rises.")
    ] = 2.0,
    ema_decay: Annotated[float, typer.Option(min=0.5, max=0.99999)] = 0.999,
    mixup: Annotated[float, typer.Option(min=0, max=1)] = 0.3,
    cutmix: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    threads: ThreadsOption = 0,
    loader_threads: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_THREADS, help="Prepare batches ahead; good with a GPU."
        ),
    ] = 0,
    others: Annotated[
        bool, typer.Option(help="Use faces filed under other emotions, with votes.")
    ] = True,
    augmentation: Annotated[
        Augmentation, typer.Option(help="How much to vary the faces.")
    ] = Augmentation.STRONG,
) -> None:
    """Train, or go on with a run that was stopped: give the same command again."""
    import torch

    from ml.augmentation import MILD, STRONG
    from ml.distillation import distil
    from ml.models import ModelConfig
    from ml.train import train as train_network
    from ml.train_config import EpochRecord, TrainConfig, TrainingError

    if threads:
        torch.set_num_threads(threads)
    layout = find_layout(data)
    source = _source(layout, labels)
    spec = InputSpec(channels=3 if channels == 3 else 1)
    teachers = [EmotionClassifier.load(path, max(threads, 1)) for path in teacher or ()]
    with progress_bars() as progress:
        faces, validation = load_for_training(
            layout,
            spec,
            source=source,
            with_others=others,
            manifest=manifest,
            progress=progress,
        )
        if teachers:
            advance = progress("Asking teachers", len(faces))
            faces = distil(faces, teachers, teacher_share, advance)
    _warn_of_unreadable(faces)
    config = TrainConfig(
        model=ModelConfig(
            architecture=architecture,
            channels=channels,
            outputs=faces.targets.shape[1],
        ),
        augmentation={"strong": STRONG, "mild": MILD, "none": None}[augmentation],
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_epochs=warmup,
        ema_decay=ema_decay,
        mixup_share=mixup,
        cutmix_share=cutmix,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # The config refuses others.
        loader_threads=loader_threads,
        teachers=tuple(one.manifest.sha256 for one in teachers),
        teacher_share=teacher_share if teachers else 0.0,
    )
    console.print(
        f"{len(faces)} faces to train on, {len(validation)} to validate", style="dim"
    )

    def show(record: EpochRecord) -> None:
        console.print(
            f"epoch {record.epoch}/{epochs}: loss {record.train_loss:.4f}, validation "
            f"loss {record.validation_loss:.4f}, accuracy "
            f"{record.validation_accuracy:.4f}, macro F1 "
            f"{record.validation_macro_f1:.4f}, {record.duration_seconds:.0f} s",
            highlight=False,
        )

    try:
        with progress_bars() as progress:
            advance = progress("Epochs", epochs)

            def on_epoch(record: EpochRecord) -> None:
                show(record)
                advance()

            result = train_network(
                config,
                faces,
                validation,
                run,
                on_epoch=on_epoch,
                pretrained=weights or (),
            )
    except TrainingError as error:
        _fail(str(error))
    rows = [asdict(record) for record in result.history]
    write_atomically(
        run / "curves.png", figures.to_png(figures.curves({architecture: rows}))
    )
    _say_next(run, f"export --run {run}")


@app.command()
def export(
    data: DataOption,
    run: Annotated[
        list[Path],
        typer.Option(help="Folder of a training run; the mean of several is one."),
    ],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    version: Annotated[str, typer.Option(help="Name of this model.")],
    flip: Annotated[
        Flip, typer.Option(help="Fold the mirrored face in; auto asks validation.")
    ] = Flip.AUTO,
    labels: Annotated[Labels | None, typer.Option(help="To calibrate on.")] = None,
) -> None:
    """Turn what a run has reached, or the mean of several, into a calibrated ONNX file
    with its manifest."""
    from ml.checkpoint import average_runs
    from ml.export import ExportError, export_result, flip_pays
    from ml.train_config import TrainingError

    layout = find_layout(data)
    source = _source(layout, labels)
    try:
        result = average_runs(run)
        spec = InputSpec(
            result.config.model.size_px, 3 if result.config.model.channels == 3 else 1
        )
        with progress_bars() as progress:
            validation = load_split(layout, "validation", spec, progress=progress)
            test = load_split(layout, "test", spec, progress=progress)
        if not (validation.labels(source) != NO_LABEL).any():
            raise DataError(
                f"No face of validation has a {source} label: there is nothing to "
                "calibrate on. Try --labels folder."
            )
        folded = (
            flip_pays(result, validation, source)
            if flip is Flip.AUTO
            else flip is Flip.YES
        )
        manifest = export_result(
            result,
            out,
            validation,
            version=version,
            flip=folded,
            source=source,
            measured_on={"test": test},
        )
    except (TrainingError, ExportError) as error:
        _fail(str(error))
    for split, by_source in manifest.metrics.items():
        for name, values in by_source.items():
            console.print(
                f"{split}, {name}: accuracy {values['accuracy']:.4f}, macro F1 "
                f"{values['macro_f1']:.4f}, calibration error {values['ece']:.4f}",
                highlight=False,
                soft_wrap=True,
            )
    console.print(f"Wrote {out} ({manifest.size_bytes / 1e6:.1f} MB)")


@app.command()
def compare(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for runs, table, figures.")] = Path(
        "mien-compare"
    ),
    budget_minutes: Annotated[
        float, typer.Option(min=0.01, help="For all networks together.")
    ] = 60.0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Names such as final-grey or vgg16-rgb; repeat for more."),
    ] = None,
    pretrained: Annotated[
        list[str] | None,
        typer.Option(
            help="vgg16=FILE: start that network from torchvision's weights; "
            "recognition=FILE: from dlib's; mobile=FILE: from faceres.json."
        ),
    ] = None,
    labels: Annotated[Labels | None, typer.Option(help="What to aim at.")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Train and judge the zoo under one budget; give the command again to go on."""
    import torch

    from ml.compare import DEFAULT_ENTRIES, Entry, table_markdown
    from ml.compare import compare as compare_networks
    from ml.export import ExportError
    from ml.starting import knows_faces
    from ml.train_config import TrainConfig, TrainingError

    if threads:
        torch.set_num_threads(threads)
    layout = find_layout(data)
    source = _source(layout, labels)
    entries = list(DEFAULT_ENTRIES)
    for given in pretrained or []:
        architecture, _, file = given.partition("=")
        if not file:
            raise DataError(f"{given!r}: write it as vgg16=FILE.")
        # What knows faces reads them in grey as well, and that is served.
        channels = 1 if knows_faces(Path(file)) else 3
        entries.append(Entry(architecture, channels, Path(file)))
    if only:
        names = {entry.name: entry for entry in entries}
        unknown = [name for name in only if name not in names]
        if unknown:
            raise DataError(
                f"There is no {', '.join(unknown)}. Choose from {', '.join(names)}."
            )
        entries = [names[name] for name in only]

    def load(channels: int) -> tuple[FaceSet, FaceSet, FaceSet]:
        spec = InputSpec(channels=3 if channels == 3 else 1)
        with progress_bars() as progress:
            faces, validation = load_for_training(
                layout, spec, source=source, progress=progress
            )
            return (
                faces,
                validation,
                load_split(layout, "test", spec, source=source, progress=progress),
            )

    try:
        rows = compare_networks(
            entries,
            load,
            out,
            budget_minutes=budget_minutes,
            source=source,
            base=TrainConfig(seed=seed, device=device, mixup_share=0.2),
            say=lambda line: console.print(line, highlight=False),
        )
    except (TrainingError, ExportError) as error:
        _fail(str(error))
    print(table_markdown(rows, source), end="")
    console.print(f"Wrote {out}")


@app.command()
def robustness(
    data: DataOption,
    split: Annotated[SplitName, typer.Option(help="Which part.")] = SplitName.TEST,
    labels: Annotated[Labels | None, typer.Option(help="Whose labels.")] = None,
    model: ModelOption = SHIPPED_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Measure what blur, noise, darkness, tilt, distance and compression cost."""
    from ml.robustness import measure_robustness

    classifier = EmotionClassifier.load(model)
    layout = find_layout(data, [split.value])
    source = _source(layout, labels)
    with progress_bars() as progress:
        faces = load_split(
            layout, split.value, classifier.manifest.input, progress=progress
        )
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


@app.command()
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

    classifier = EmotionClassifier.load(model)
    layout = find_layout(data, [split.value])
    source = _source(layout, labels)
    with progress_bars() as progress:
        faces = load_split(
            layout, split.value, classifier.manifest.input, progress=progress
        )
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


@app.command()
def features(
    data: DataOption,
    model: ModelOption = SHIPPED_MODEL,
    out: Annotated[
        Path | None, typer.Option(help="File to write; beside the model, if unsaid.")
    ] = None,
    faces: Annotated[int, typer.Option(min=10, help="Training faces to keep.")] = 6000,
) -> None:
    """Write what refitting the head needs where there is no data folder."""
    from ml.retraining import collect, save_retraining

    classifier = EmotionClassifier.load(model)
    layout = find_layout(data)
    with progress_bars() as progress:
        train_faces, validation = load_for_training(
            layout, classifier.manifest.input, progress=progress
        )
    path = out or model.with_name("retraining.npz")
    kept = collect(classifier, train_faces, validation, faces)
    if not (len(kept.features) and len(kept.evaluation_labels)):
        raise DataError(
            f"{len(kept.features)} faces are left to train on and "
            f"{len(kept.evaluation_labels)} to judge by: both need votes or folders "
            "that name one of the four emotions, and train other faces than "
            "validation and test."
        )
    save_retraining(path, kept)
    console.print(
        f"Wrote {path}: {len(kept.features)} faces to train on, "
        f"{len(kept.evaluation_labels)} to judge by, {path.stat().st_size / 1e6:.1f} MB"
    )
