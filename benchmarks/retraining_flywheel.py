"""Does the flywheel turn? What a label buys, and what a new condition costs.

    python -m benchmarks.retraining_flywheel --data DIR --run RUN [--full] [--write]
    python -m benchmarks.retraining_flywheel --data DIR --run RUN --settings [--write]

RUN is a network trained on the raw folder labels
(`python -m ml train --labels folder`), and its export, RUN.onnx beside it. Faces of
the training split are labelled by the majority of their ten votes, in the order of the
queue or by chance; a visitor flags one in four of the faces that the champion reads
wrong, and one in a hundred of the others. After 0, 250, 500, 1,000 and 2,000 labels
the head is refitted, as a head run of the site does it, and judged on the consensus
labels of test. A face without a majority among the four costs its label and teaches
nothing. Five draws. ``--full`` goes on training the whole network, too: one draw.

The second part takes the shipped champion and faces that are dark, blurred and tilted,
all at once and more than in training. So many of them, labelled, are added to what the
head is refitted on; test is judged under both conditions.

The settings are the defaults of the site's runs; nothing is chosen there. With
``--settings`` validation compares others for a head run, in both experiments; test is
not read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

from benchmarks.curation import IntArray, in_order
from benchmarks.report import DOCS, model_line, put, put_picture, table
from ml.consensus import NO_LABEL
from ml.data import FaceSet, find_layout, load_for_training, load_split
from ml.figures import to_png
from ml.inference import (
    SHIPPED_MODEL,
    EmotionClassifier,
    Float32Array,
    softmax,
)
from ml.labels import EMOTIONS
from ml.manifest import InputSpec
from ml.preprocessing import UInt8Array
from ml.retraining import SAMPLE, load_retraining, refit_head

if TYPE_CHECKING:
    # Torch is loaded where whole networks are trained, and there alone.
    from ml.models import FaceNetwork
    from ml.train_config import TrainConfig

REPORT: Final = DOCS / "retraining.md"
SPENT: Final = (0, 250, 500, 1000, 2000)
SHIFTED: Final = (0, 50, 100, 250, 500, 1000)
SHIFTED_WHOLE: Final = (0, 250, 1000)
"""Where the whole network is trained, too: minutes each."""
SEEDS: Final = 5
COMPARED: Final = ("teaches_most", "by_chance")
SHIFT_COLOURS: Final = {"new": "#d98c00", "old": "#0b6a56"}
COLOURS: Final = {"teaches_most": "#0b6a56", "by_chance": "#6b7280"}

CURATED_WEIGHT: Final = 5.0
"""As in ``webapp.training.configs``, which needs a site to be imported."""
STAY: Final = 1e-3
WEIGHTS: Final = (1.0, 5.0, 20.0)
STAYS: Final = (1e-4, 1e-3, 1e-2)
TUNED: Final = (250, 1000)
"""Labels, or faces of the new condition, after which settings are compared."""
EPOCHS, RATE, FACES_PER_EPOCH = 4, 0.01, 8000
"""Of the full runs here; the site's take more epochs and all faces."""


def order_of(
    name: str, probabilities: Float32Array, truth: IntArray, seed: int
) -> IntArray:
    """The faces, the first to be labelled first."""
    generator = np.random.default_rng(seed)
    chance, drawn = generator.random((2, len(truth)))
    wrong = probabilities.argmax(axis=1) != truth
    worth = in_order(name, probabilities, wrong, drawn, chance)
    return np.argsort(worth, kind="stable")[::-1].astype(np.int64)


def one_hot(labels: IntArray) -> Float32Array:
    return np.eye(len(EMOTIONS), dtype=np.float32)[labels]


def refitted(
    classifier: EmotionClassifier,
    base: Float32Array,
    features: Float32Array,
    labels: IntArray,
    curated_weight: float = CURATED_WEIGHT,
    stay: float = STAY,
) -> tuple[Float32Array, Float32Array]:
    """As a head run does it: the base asks for what the champion says of it."""
    start = (classifier.head_weight, classifier.head_bias)
    if not len(features):
        return start
    own = softmax(base @ start[0].T + start[1]).astype(np.float32)
    weights = np.ones(len(base) + len(features), np.float32)
    weights[len(base) :] = curated_weight
    return refit_head(
        np.concatenate([base, features]),
        np.concatenate([own, one_hot(labels)]),
        weights,
        start,
        stay,
    )


def accuracy(
    head: tuple[Float32Array, Float32Array], features: Float32Array, labels: IntArray
) -> float:
    said = (features @ head[0].T + head[1]).argmax(axis=1)
    return float((said == labels).mean())


def labels_spent(
    classifier: EmotionClassifier, train: FaceSet, test: FaceSet
) -> dict[str, Float32Array]:
    """Accuracy, (SEEDS, len(SPENT)) an order."""
    features = classifier.features(train.crops)
    probabilities = softmax(
        features @ classifier.head_weight.T + classifier.head_bias
    ).astype(np.float32)
    judged = classifier.features(test.crops)
    curves: dict[str, Float32Array] = {}
    for name in COMPARED:
        rows = []
        for seed in range(SEEDS):
            base = np.random.default_rng(seed).permutation(len(train))[:SAMPLE]
            order = order_of(name, probabilities, train.consensus, seed)
            row = []
            for spent in SPENT:
                chosen = order[:spent]
                chosen = chosen[train.consensus[chosen] != NO_LABEL]
                head = refitted(
                    classifier,
                    features[base],
                    features[chosen],
                    train.consensus[chosen],
                )
                row.append(accuracy(head, judged, test.consensus))
            rows.append(row)
        curves[name] = np.array(rows, np.float32)
    return curves


def gone_on(
    start: Path, config: TrainConfig, faces: FaceSet, test: FaceSet
) -> FaceNetwork:
    """The network of a checkpoint after a short full run on ``faces``."""
    from ml.train import train as train_network

    with tempfile.TemporaryDirectory() as folder:
        result = train_network(
            replace(
                config,
                epochs=EPOCHS,
                learning_rate=RATE,
                warmup_epochs=0.5,
                faces_per_epoch=FACES_PER_EPOCH,
            ),
            faces,
            # Nobody looks at the curve over the epochs: two faces do for it.
            test.take(np.arange(2)),
            Path(folder),
            pretrained=[start],
        )
    return result.network


def accuracy_of(network: FaceNetwork, faces: FaceSet) -> float:
    import torch

    from ml.train import predict_logits

    logits = predict_logits(network, faces, torch.device("cpu"))
    return float((logits.argmax(axis=1) == faces.consensus).mean())


def whole_network(
    run: Path, classifier: EmotionClassifier, train: FaceSet, test: FaceSet
) -> dict[str, list[float]]:
    """Accuracy after going on from the champion with so many labels corrected."""
    from ml.checkpoint import CHECKPOINT_FILE
    from ml.train_config import config_from_dict

    config = config_from_dict(
        json.loads((run / "config.json").read_text(encoding="utf-8"))
    )
    features = classifier.features(train.crops)
    probabilities = softmax(
        features @ classifier.head_weight.T + classifier.head_bias
    ).astype(np.float32)
    curves: dict[str, list[float]] = {}
    untouched: float | None = None
    for name in COMPARED:
        order = order_of(name, probabilities, train.consensus, seed=0)
        row: list[float] = []
        for spent in SPENT:
            if spent == 0 and untouched is not None:
                row.append(untouched)
                continue
            chosen = order[:spent]
            chosen = chosen[train.consensus[chosen] != NO_LABEL]
            targets, weights = train.targets.copy(), train.weights.copy()
            targets[chosen] = one_hot(train.consensus[chosen])
            weights[chosen] *= CURATED_WEIGHT
            corrected = replace(train, targets=targets, weights=weights)
            network = gone_on(run / CHECKPOINT_FILE, config, corrected, test)
            row.append(accuracy_of(network, test))
            print(f"full, {name}, {spent}: {100 * row[-1]:.2f} %", flush=True)
            untouched = row[0]
        curves[name] = row
    return curves


def shift(crops: UInt8Array, seed: int) -> UInt8Array:
    """Dark, noisy, blurred and tilted to either side: beyond what training varies."""
    generator = np.random.default_rng(seed)
    out = np.empty_like(crops)
    for number, crop in enumerate(crops):
        pixels = np.pad(crop[:, :, 0], 12, mode="edge")
        turned = Image.fromarray(pixels).rotate(
            generator.choice([-40, 40]), Image.Resampling.BICUBIC
        )
        side = crop.shape[0]
        face = turned.crop((12, 12, 12 + side, 12 + side))
        face = face.filter(ImageFilter.GaussianBlur(2))
        dark = np.asarray(face, np.float64) * 0.15
        dark += generator.normal(0, 3, dark.shape)
        out[number, :, :, 0] = dark.clip(0, 255).astype(np.uint8)
    return out


def new_condition(
    classifier: EmotionClassifier, train: FaceSet, test: FaceSet
) -> dict[str, Float32Array]:
    """Accuracy under the new and the old condition, (SEEDS, len(SHIFTED))."""
    base = load_retraining(classifier.manifest).features
    known = train.take(train.consensus != NO_LABEL)
    old, new = (
        classifier.features(test.crops),
        classifier.features(shift(test.crops, seed=1)),
    )
    curves: dict[str, list[list[float]]] = {"new": [], "old": []}
    for seed in range(SEEDS):
        drawn = np.random.default_rng(seed).permutation(len(known))[: SHIFTED[-1]]
        faces = known.take(drawn)
        features = classifier.features(shift(faces.crops, seed=100 + seed))
        heads = [
            refitted(classifier, base, features[:spent], faces.consensus[:spent])
            for spent in SHIFTED
        ]
        for name, judged in (("new", new), ("old", old)):
            curves[name].append([accuracy(h, judged, test.consensus) for h in heads])
    return {name: np.array(rows, np.float32) for name, rows in curves.items()}


def new_condition_whole(
    classifier: EmotionClassifier, train: FaceSet, test: FaceSet
) -> dict[str, Float32Array]:
    """The same after going on with the whole network: one draw, (1, len(SHIFTED)),
    no number where no run was made."""

    from ml.train_config import config_from_dict

    known = train.take(train.consensus != NO_LABEL)
    known = replace(known, targets=one_hot(known.consensus))
    bad = test.with_crops(shift(test.crops, seed=1))
    drawn = np.random.default_rng(0).permutation(len(known))[: SHIFTED[-1]]
    crops = shift(known.crops[drawn], seed=100)
    config = config_from_dict(dict(classifier.manifest.training["config"]))
    config = replace(config, model=replace(config.model, outputs=len(EMOTIONS)))
    curves = {
        name: np.full((1, len(SHIFTED)), np.nan, np.float32) for name in ("new", "old")
    }
    for place, spent in enumerate(SHIFTED):
        if spent not in SHIFTED_WHOLE:
            continue
        # In place of the same faces as they are, so that no face counts twice.
        mixed, weights = known.crops.copy(), known.weights.copy()
        mixed[drawn[:spent]] = crops[:spent]
        weights[drawn[:spent]] *= CURATED_WEIGHT
        faces = replace(known, crops=mixed, weights=weights)
        trained = gone_on(SHIPPED_MODEL, config, faces, test)
        for name, judged in (("new", bad), ("old", test)):
            curves[name][0, place] = accuracy_of(trained, judged)
            value = 100 * curves[name][0, place]
            print(f"full, {spent}, {name}: {value:.2f} %", flush=True)
    return curves


def settings_compared(
    raw: EmotionClassifier,
    champion: EmotionClassifier,
    train: FaceSet,
    validation: FaceSet,
) -> tuple[list[str], list[tuple[float, float]], Float32Array]:
    """What was judged, the settings, and accuracy on validation: (settings, SEEDS,
    judged)."""
    grid = [(weight, stay) for weight in WEIGHTS for stay in STAYS]
    judged = [f"{n:,} labels" for n in TUNED]
    judged += [f"{n:,} {side}" for n in TUNED for side in ("new", "old")]
    found = np.zeros((len(grid), SEEDS, len(judged)), np.float32)
    truth = validation.consensus

    features = raw.features(train.crops)
    said = softmax(features @ raw.head_weight.T + raw.head_bias).astype(np.float32)
    seen = raw.features(validation.crops)
    base = load_retraining(champion.manifest).features
    known = np.flatnonzero(train.consensus != NO_LABEL)
    old = champion.features(validation.crops)
    new = champion.features(shift(validation.crops, seed=2))
    for seed in range(SEEDS):
        sample = np.random.default_rng(seed).permutation(len(train))[:SAMPLE]
        order = order_of("teaches_most", said, train.consensus, seed)
        drawn = known[np.random.default_rng(seed).permutation(len(known))[: TUNED[-1]]]
        bad = champion.features(shift(train.crops[drawn], seed=200 + seed))
        for place, setting in enumerate(grid):
            row: list[float] = []
            for spent in TUNED:
                chosen = order[:spent]
                chosen = chosen[train.consensus[chosen] != NO_LABEL]
                labels = train.consensus[chosen]
                head = refitted(
                    raw, features[sample], features[chosen], labels, *setting
                )
                row.append(accuracy(head, seen, truth))
            for spent in TUNED:
                labels = train.consensus[drawn[:spent]]
                head = refitted(champion, base, bad[:spent], labels, *setting)
                row += [accuracy(head, new, truth), accuracy(head, old, truth)]
            found[place, seed] = row
        print(f"draw {seed + 1} of {SEEDS}", flush=True)
    return judged, grid, found


def settings_table(
    judged: Sequence[str], grid: Sequence[tuple[float, float]], found: Float32Array
) -> str:
    """Accuracies in percent; the last column is how the mean of all of them differs
    from the default's, draw by draw, with twice its standard error."""
    default = grid.index((CURATED_WEIGHT, STAY))
    rows = []
    for (weight, stay), values in zip(grid, found, strict=True):
        gains = 100 * (values - found[default]).mean(axis=1)
        error = 2 * gains.std(ddof=1) / np.sqrt(len(gains))
        rows.append(
            [
                f"{weight:g}",
                f"{stay:g}",
                *(f"{value:.2f}" for value in 100 * values.mean(axis=0)),
                f"{gains.mean():+.2f} ± {error:.2f}",
            ]
        )
    header = ["curated_weight", "stay", *judged, "mean, against the default"]
    return table(header, rows)


def row_of(name: str, values: Float32Array) -> list[str]:
    """Mean and, of several draws, standard deviation, in percent."""
    mean, spread = 100 * values.mean(axis=0), 100 * values.std(axis=0)
    several = len(values) > 1
    return [
        name,
        *(
            "" if np.isnan(m) else f"{m:.2f} ± {s:.2f}" if several else f"{m:.2f}"
            for m, s in zip(mean, spread, strict=True)
        ),
    ]


def figure_of(
    lines: Mapping[str, tuple[Sequence[int], Float32Array, str, str]], x: str
) -> bytes:
    """Name -> (x values, (draws, x) accuracy, colour, style), as a PNG."""
    figure = Figure(figsize=(6.4, 3.8))
    axes = figure.subplots()
    for name, (steps, values, colour, style) in lines.items():
        mean, spread = 100 * values.mean(axis=0), 100 * values.std(axis=0)
        axes.plot(steps, mean, style, label=name, color=colour, marker="o", ms=3)
        axes.fill_between(steps, mean - spread, mean + spread, color=colour, alpha=0.15)
    axes.set_xlabel(x)
    axes.set_ylabel("accuracy on test, %")
    axes.legend()
    axes.grid(alpha=0.3)
    return to_png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--full", action="store_true", help="train whole networks, too")
    parser.add_argument(
        "--settings", action="store_true", help="compare those of a head run instead"
    )
    parser.add_argument("--write", action="store_true", help="put it into docs/")
    given = parser.parse_args()
    layout = find_layout(given.data)
    spec = InputSpec()
    train, _ = load_for_training(layout, spec, source="folder", with_others=False)
    raw = EmotionClassifier.load(given.run.with_suffix(".onnx"))
    champion = EmotionClassifier.load()
    if given.settings:
        validation = load_split(layout, "validation", spec)
        validation = validation.take(validation.consensus != NO_LABEL)
        compared = settings_table(*settings_compared(raw, champion, train, validation))
        print(compared)
        if given.write:
            version = champion.manifest.version
            put("settings", f"{compared}\n\nMeasured with {version}.", REPORT)
        return
    test = load_split(layout, "test", spec)
    test = test.take(test.consensus != NO_LABEL)

    spent = labels_spent(raw, train, test)
    rows = [row_of(f"head, {name}", spent[name]) for name in COMPARED]
    lines = {
        f"head, {name}": (SPENT, spent[name], COLOURS[name], "-") for name in COMPARED
    }
    if given.full:
        for name, values in whole_network(given.run, raw, train, test).items():
            array = np.array([values], np.float32)
            rows.append(row_of(f"full, {name}", array))
            lines[f"full, {name}"] = (SPENT, array, COLOURS[name], "--")
    flywheel = table(["run, order", *(f"{n:,} labels" for n in SPENT)], rows)
    print(flywheel)

    shifted = new_condition(champion, train, test)
    judged_on = {"new": "dark, blurred, tilted", "old": "as they are"}
    rows = [row_of(f"head, {judged_on[name]}", shifted[name]) for name in judged_on]
    bends = {
        f"head, {judged_on[name]}": (SHIFTED, shifted[name], SHIFT_COLOURS[name], "-")
        for name in judged_on
    }
    if given.full:
        whole = new_condition_whole(champion, train, test)
        for name, words in judged_on.items():
            rows.append(row_of(f"full, {words}", whole[name]))
            made = ~np.isnan(whole[name][0])
            steps = tuple(np.array(SHIFTED)[made].tolist())
            bends[f"full, {words}"] = (
                steps,
                whole[name][:, made],
                SHIFT_COLOURS[name],
                "--",
            )
    condition = table(["run, judged on", *(f"{n:,} faces" for n in SHIFTED)], rows)
    print(condition)
    if not given.write:
        return
    put_picture("retraining-flywheel", figure_of(lines, "labels spent"))
    put_picture(
        "retraining-condition",
        figure_of(bends, "labelled faces of the new condition"),
    )
    put("flywheel", flywheel, REPORT)
    put("condition", f"{condition}\n\n{model_line(champion.manifest)}", REPORT)


if __name__ == "__main__":
    main()
