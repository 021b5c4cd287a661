"""Commands that make models: train, export, compare, and what retraining needs."""

from __future__ import annotations

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml import figures
from ml.cli.base import (
    MAX_THREADS,
    DataOption,
    Labels,
    ModelOption,
    ThreadsOption,
    check_place,
    fail,
    finite,
    label_source,
    need_labels,
    say_next,
    source_of,
    warn_of_unreadable,
)
from ml.data import (
    SPLITS,
    DataError,
    FaceSet,
    LabelSource,
    Layout,
    find_layout,
    load_for_training,
    load_split,
    read_cleaned,
)
from ml.inference import SHIPPED_MODEL, EmotionClassifier
from ml.labels import EMOTIONS
from ml.manifest import (
    InputSpec,
    ModelManifest,
    check_version,
    load_manifest,
    write_atomically,
)
from ml.progress import console, progress_bars

ManifestOption = Annotated[
    Path | None, typer.Option(help="A cleaned manifest, from ml clean.")
]
OthersOption = Annotated[
    bool,
    typer.Option(
        help="Use faces filed under other emotions, with votes; a cleaned manifest "
        "names none."
    ),
]


class Choice(StrEnum):
    AUTO = "auto"
    YES = "yes"
    NO = "no"


class Augmentation(StrEnum):
    STRONG = "strong"
    MILD = "mild"
    NONE = "none"


def train(
    run: Annotated[Path, typer.Option(help="Folder for checkpoint and curves.")],
    data: DataOption,
    architecture: Annotated[str, typer.Option(help="One of the zoo.")] = "final",
    channels: Annotated[int, typer.Option(help="1 grey, 3 RGB.")] = 1,
    labels: Annotated[Labels | None, typer.Option(help="What to aim at.")] = None,
    manifest: ManifestOption = None,
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
        float,
        typer.Option(
            min=0, max=1, callback=finite, help="How much the teachers' word counts."
        ),
    ] = 0.5,
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(min=1e-6)] = 0.1,
    warmup: Annotated[
        float,
        typer.Option(min=0, max=1e6, help="Epochs in which the rate rises."),
    ] = 2.0,
    ema_decay: Annotated[float, typer.Option(min=0.5, max=0.99999)] = 0.999,
    mixup: Annotated[float, typer.Option(min=0, max=1)] = 0.3,
    cutmix: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    threads: ThreadsOption = 0,
    loader_threads: Annotated[
        int,
        typer.Option(
            min=0, max=MAX_THREADS, help="Prepare batches ahead; good with a GPU."
        ),
    ] = 0,
    others: OthersOption = True,
    augmentation: Annotated[
        Augmentation, typer.Option(help="How much to vary the faces.")
    ] = Augmentation.STRONG,
) -> None:
    """Train, or go on with a run that was stopped: give the same command again."""
    import torch

    from ml.augmentation import MILD, STRONG
    from ml.distillation import check_teachers, distil
    from ml.models import ModelConfig
    from ml.train import leads
    from ml.train import train as train_network
    from ml.train_config import EpochRecord, TrainConfig, TrainingError

    if threads:
        torch.set_num_threads(threads)
    layout = find_layout(data)
    check_place(run, layout, "--run")
    # What is wrong with the options is said before minutes of reading.
    settings = TrainConfig(
        model=ModelConfig(architecture=architecture, channels=channels),
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
    )
    _need_device(device)
    for path in weights or ():
        path.open("rb").close()
    source = label_source(layout, labels)
    spec = settings.model.input_spec
    teachers = [EmotionClassifier.load(path, max(threads, 1)) for path in teacher or ()]
    check_teachers(teachers, spec)
    with progress_bars() as progress:
        faces, validation = load_for_training(
            layout,
            spec,
            source=source,
            with_others=others and manifest is None,
            manifest=manifest,
            progress=progress,
        )
        if teachers:
            advance = progress("Asking teachers", len(faces))
            faces = distil(faces, teachers, teacher_share, advance)
    warn_of_unreadable(faces, validation)
    source_of(faces, source, layout)
    config = replace(
        settings,
        model=replace(settings.model, outputs=faces.targets.shape[1]),
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
        fail(str(error))
    if not leads():
        return
    rows = [asdict(record) for record in result.history]
    write_atomically(
        run / "curves.png", figures.to_png(figures.curves({architecture: rows}))
    )
    say_next(
        run,
        *("export", "--data", data, "--run", run),
        *("--out", "NAME.onnx", "--version", "NAME"),
    )


def _need_device(name: str) -> None:
    """Before minutes of reading."""
    from ml.train import find_device
    from ml.train_config import TrainingError

    try:
        find_device(name)
    except TrainingError as error:
        fail(str(error))


def export(
    data: DataOption,
    run: Annotated[
        list[Path],
        typer.Option(help="Folder of a training run; the mean of several is one."),
    ],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    version: Annotated[str, typer.Option(help="Name of this model.")],
    flip: Annotated[
        Choice, typer.Option(help="Fold the mirrored face in; auto asks validation.")
    ] = Choice.AUTO,
    eight_bits: Annotated[
        Choice,
        typer.Option(help="Compute in eight bits, faster; auto asks validation."),
    ] = Choice.AUTO,
    labels: Annotated[Labels | None, typer.Option(help="To calibrate on.")] = None,
    manifest: ManifestOption = None,
    others: OthersOption = True,
) -> None:
    """Turn what a run has reached, or the mean of several, into a calibrated ONNX file
    with its manifest. The mean is measured anew on what its runs trained on: give
    their --manifest or --no-others again; one run alone needs neither."""
    _check_out(out)
    check_version(version)
    from ml.checkpoint import average_runs
    from ml.export import ExportError, export_result, flip_pays
    from ml.train import check_training_set, renew_statistics
    from ml.train_config import TrainingError

    layout = find_layout(data)
    check_place(out, layout, folder=False)
    source = label_source(layout, labels)
    try:
        result = average_runs(run)
        spec = result.config.model.input_spec
        if result.averaged_with and manifest is not None:
            # What is wrong with it is said before minutes of reading.
            read_cleaned(manifest)
        validation, test, source = _judges(layout, spec, source)
        if result.averaged_with:
            voted = result.config.model.outputs > len(EMOTIONS)
            with progress_bars() as progress:
                trained, _ = load_for_training(
                    layout,
                    spec,
                    source="consensus" if voted else "folder",
                    with_others=others and manifest is None,
                    manifest=manifest,
                    progress=progress,
                )
                for run_dir in run:
                    check_training_set(run_dir, trained)
                renew_statistics(result.network, result.config, trained, progress)
        folded = (
            flip_pays(result, validation, source)
            if flip is Choice.AUTO
            else flip is Choice.YES
        )
        exported = export_result(
            result,
            out,
            validation,
            version=version,
            flip=folded,
            eight_bits=None if eight_bits is Choice.AUTO else eight_bits is Choice.YES,
            source=source,
            measured_on={"test": test},
        )
    except (TrainingError, ExportError) as error:
        fail(str(error))
    _say_written(out, exported)


def _check_out(out: Path) -> None:
    if out.suffix != ".onnx":
        raise DataError(
            f"{out}: give a name that ends in .onnx; the manifest's ends in .json."
        )


def _judges(
    layout: Layout, spec: InputSpec, source: LabelSource
) -> tuple[FaceSet, FaceSet, LabelSource]:
    """Validation, test, and whose labels judge."""
    with progress_bars() as progress:
        validation, test = (
            load_split(layout, split, spec, source=source, progress=progress)
            for split in SPLITS[1:]
        )
    warn_of_unreadable(validation, test)
    source = source_of(validation, source, layout)
    for part, faces in (("validation", validation), ("test", test)):
        need_labels(faces, source, part)
    return validation, test, source


def quantise(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    version: Annotated[str, typer.Option(help="Name of this model.")],
    model: ModelOption = SHIPPED_MODEL,
    labels: Annotated[Labels | None, typer.Option(help="To calibrate on.")] = None,
) -> None:
    """Make of an exported model one that computes in eight bits: a face takes about
    half of the time, the file half of the room."""
    _check_out(out)
    check_version(version)
    from ml.export import ExportError, export_quantised

    layout = find_layout(data)
    check_place(out, layout, folder=False)
    source = label_source(layout, labels)
    spec = load_manifest(model).input
    try:
        validation, test, source = _judges(layout, spec, source)
        exported = export_quantised(
            model,
            out,
            validation,
            version=version,
            source=source,
            measured_on={"test": test},
        )
    except ExportError as error:
        fail(str(error))
    _say_written(out, exported)


def _say_written(out: Path, exported: ModelManifest) -> None:
    for split, by_source in exported.metrics.items():
        for name, values in by_source.items():
            console.print(
                f"{split}, {name}: accuracy {values['accuracy']:.4f}, macro F1 "
                f"{values['macro_f1']:.4f}, calibration error {values['ece']:.4f}",
                highlight=False,
                soft_wrap=True,
            )
    console.print(
        f"Wrote {out} ({exported.size_bytes / 1e6:.1f} MB)",
        highlight=False,
        soft_wrap=True,
    )


def compare(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for runs, table, figures.")] = Path(
        "mien-compare"
    ),
    budget_minutes: Annotated[
        float,
        typer.Option(
            min=0.01, max=1e6, callback=finite, help="For all networks together."
        ),
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
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Train and judge the zoo under one budget; give the command again to go on."""
    import torch

    from ml.compare import DEFAULT_ENTRIES, Entry
    from ml.compare import compare as compare_networks
    from ml.export import ExportError
    from ml.models import ModelConfig
    from ml.starting import knows_faces
    from ml.train_config import TrainConfig, TrainingError

    if threads:
        torch.set_num_threads(threads)
    layout = find_layout(data)
    check_place(out, layout)
    _need_device(device)
    asked = label_source(layout, labels)
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

    def load(channels: int) -> tuple[FaceSet, FaceSet, FaceSet, LabelSource]:
        spec = ModelConfig(channels=channels).input_spec
        with progress_bars() as progress:
            faces, validation = load_for_training(
                layout, spec, source=asked, progress=progress
            )
            test = load_split(layout, "test", spec, source=asked, progress=progress)
        warn_of_unreadable(faces, validation, test)
        # What judges must be judged by one source, and so must the next network be.
        source = source_of(test, source_of(validation, asked, layout), layout)
        # Before the hour of training that would end at them.
        for part, judging in (("validation", validation), ("test", test)):
            need_labels(judging, source, part)
        return faces, validation, test, source

    try:
        table = compare_networks(
            entries,
            load,
            out,
            budget_minutes=budget_minutes,
            base=TrainConfig(
                seed=seed,
                device=device,
                # What docs/models.md compares was trained so.
                ema_decay=0.9995,
                mixup_share=0.2,
                cutmix_share=0.2,
            ),
            say=lambda line: console.print(line, highlight=False),
        )
    except (TrainingError, ExportError) as error:
        fail(str(error))
    print(table, end="")
    console.print(f"Wrote {out}", highlight=False, soft_wrap=True)


def features(
    data: DataOption,
    model: ModelOption = SHIPPED_MODEL,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write; beside the model, if unsaid and the model is not the "
            "shipped one."
        ),
    ] = None,
    faces: Annotated[int, typer.Option(min=10, help="Training faces to keep.")] = 6000,
) -> None:
    """Write what refitting the head needs where there is no data folder."""
    from ml.retraining import SHIPPED_RETRAINING, collect, save_retraining

    classifier = EmotionClassifier.load(model)
    layout = find_layout(data)
    path = out or model.with_name("retraining.npz")
    if out is None and path.resolve() == SHIPPED_RETRAINING.resolve():
        raise DataError(
            f"{path} comes with Mien: a site's head runs start from it. Name the file "
            "to write with --out."
        )
    check_place(path, layout, folder=False)
    with progress_bars() as progress:
        train_faces, validation = load_for_training(
            layout, classifier.manifest.input, progress=progress
        )
    warn_of_unreadable(train_faces, validation)
    source_of(train_faces, "consensus", layout)
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
        f"{len(kept.evaluation_labels)} to judge by, "
        f"{path.stat().st_size / 1e6:.1f} MB",
        highlight=False,
        soft_wrap=True,
    )
