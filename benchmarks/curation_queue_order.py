"""Which order of the queue teaches the model most?

    python -m benchmarks.curation_queue_order --data DIR [--write]

A head on the features of the shipped model knows 200 labelled faces of the training
split. Then 1,000 more are labelled, 100 at a time, in the order of the queue; after
each hundred the head is fitted again. Validation chooses the order: the one whose
accuracy there, over all steps, is highest. Test faces, which choose nothing, tell what
it is worth. A visitor flags one in four of the faces that the head reads wrong, and
one in a hundred of the others. A label is the majority of the ten real votes; a face
without one, or that shows none of the four, costs its labels and teaches nothing. Ten
draws of the 200.

The features come from a model that was trained on this very split, so the heads are
better than they would be on new faces; orders are compared on equal terms.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

from benchmarks import curation
from benchmarks.curation import Float64Array, IntArray
from benchmarks.report import model_line, put, put_picture, table
from ml.consensus import NO_LABEL
from ml.figures import to_png
from ml.inference import EmotionClassifier
from ml.labels import EMOTIONS
from webapp.curation.order import ORDERS

SEEDS: Final = 10
KNOWN: Final = 200
SPENT: Final = 1000
STEP: Final = 100
POOL: Final = 6000
COLOURS: Final = {
    "teaches_most": "#0b6a56",
    "flags_first": "#d98c00",
    "by_chance": "#6b7280",
}


def fit(features: Float64Array, labels: IntArray) -> LogisticRegression:
    head = LogisticRegression(C=0.05, max_iter=300)
    with warnings.catch_warnings():
        # A head that has not settled entirely is as good for every order.
        warnings.simplefilter("ignore")
        head.fit(features, labels)
    return head


def say(head: LogisticRegression, features: Float64Array) -> Float64Array:
    """(N, 4), whichever emotions the head has seen."""
    out = np.zeros((len(features), len(EMOTIONS)))
    out[:, head.classes_] = head.predict_proba(features)
    return out


def run(
    name: str,
    seed: int,
    train: tuple[Float64Array, IntArray],
    judges: Sequence[tuple[Float64Array, IntArray]],
) -> list[list[float]]:
    """Accuracy on each of ``judges`` after 0, 100 ... 1,000 labels."""
    generator = np.random.default_rng(seed)
    features, labels = train
    places = generator.permutation(len(labels))
    labelled = [int(i) for i in places if labels[i] != NO_LABEL][:KNOWN]
    known = set(labelled)
    pool = [int(i) for i in places if int(i) not in known][:POOL]
    chance = generator.random(len(labels))
    flags_drawn = generator.random(len(labels))
    curve: list[list[float]] = []
    for spent in range(0, SPENT + 1, STEP):
        head = fit(features[labelled], labels[labelled])
        curve.append(
            [
                float((say(head, given).argmax(axis=1) == truth).mean())
                for given, truth in judges
            ]
        )
        if spent == SPENT:
            break
        said = say(head, features[pool])
        wrong = said.argmax(axis=1) != labels[pool]
        worth = curation.in_order(name, said, wrong, flags_drawn[pool], chance[pool])
        chosen = {pool[i] for i in np.argsort(worth)[::-1][:STEP]}
        labelled += [face for face in chosen if labels[face] != NO_LABEL]
        pool = [face for face in pool if face not in chosen]
    return curve


def main() -> None:
    given = curation.arguments(__doc__ or "")
    classifier = EmotionClassifier.load()
    parts = []
    for split in ("train", "validation", "test"):
        faces = curation.load(given.data, split, classifier)
        assert faces.votes is not None
        truth = curation.majority(curation.verdict_votes(faces.votes))
        # The other verdicts are no class of the head.
        truth = np.where(truth < len(EMOTIONS), truth, NO_LABEL)
        if split != "train":
            faces, truth = faces.take(truth != NO_LABEL), truth[truth != NO_LABEL]
        parts.append((curation.features_of(classifier, faces), truth))
    scale = parts[0][0].std(axis=0) + 1e-6
    train, *judges = ((features / scale, truth) for features, truth in parts)
    # Order, draw, step, and whether validation or test judged.
    curves = {
        name: np.array([run(name, seed, train, judges) for seed in range(SEEDS)])
        for name in ORDERS
    }
    chosen = max(curves, key=lambda name: float(curves[name][:, 1:, 0].mean()))
    steps = list(range(0, SPENT + 1, STEP))
    rows = [
        [
            name,
            f"{100 * values[:, 1:, 0].mean():.2f} %",
            *(
                f"{100 * values[:, steps.index(at), 1].mean():.2f} %"
                f" ± {100 * values[:, steps.index(at), 1].std():.2f}"
                for at in (0, 200, 500, 1000)
            ),
        ]
        for name, values in curves.items()
    ]
    header = [
        "order",
        "validation, mean of the ten steps",
        *(f"test, {at} labels" for at in ("0", "200", "500", "1,000")),
    ]
    # The mean over all steps: what an order is worth at whatever point one stops.
    gain = (curves[chosen] - curves["by_chance"])[:, 1:, 1].mean(axis=1)
    text = table(header, rows) + (
        f"\n\nValidation chooses `{chosen}`. On test, `{chosen}` over `by_chance`, "
        f"mean of the ten steps: {100 * gain.mean():+.2f} points (standard deviation "
        f"{100 * gain.std():.2f} over {SEEDS} draws, {int((gain > 0).sum())} of "
        f"{SEEDS} above zero)."
    )
    print(text)
    if not given.write:
        return
    figure = Figure(figsize=(6.4, 3.8))
    axes = figure.subplots()
    for name, values in curves.items():
        on_test = 100 * values[:, :, 1]
        mean, spread = on_test.mean(axis=0), on_test.std(axis=0)
        axes.plot(steps, mean, label=name, color=COLOURS[name], marker="o", ms=3)
        axes.fill_between(
            steps, mean - spread, mean + spread, color=COLOURS[name], alpha=0.15
        )
    axes.set_xlabel("labels spent")
    axes.set_ylabel("accuracy on test, %")
    axes.legend()
    axes.grid(alpha=0.3)
    put_picture("curation-queue-order", to_png(figure))
    put(
        "queue-order",
        f"{text} {model_line(classifier.manifest)}",
        curation.REPORT,
    )


if __name__ == "__main__":
    main()
