"""Do consensus and gold faces hold against bad annotators?

    python -m benchmarks.curation_crowd --data DIR [--write]

A crowd of ten labels the validation faces (which the model has not been trained on)
by the rules of the queue: two are asked, where they differ a third. A good annotator
gives one of the ten real votes of the face, drawn without putting it back; a bad one
answers at random, or always the same. The majority of all ten real votes is the
truth; faces without one are left out of the score.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.figure import Figure

from benchmarks import curation
from benchmarks.curation import Float64Array, IntArray
from benchmarks.report import model_line, put, put_picture, table
from ml.consensus import NO_LABEL, VERDICTS, decide, weigh_votes
from ml.consensus import _model_voice as translate
from ml.figures import to_png
from ml.inference import EmotionClassifier

CROWD: Final = 10
ROUNDS: Final = 5
BAD: Final = (0, 2, 4)
GOLD_EVERY: Final = 15
GOLD_WINDOW, GOLD_MINIMUM, GOLD_PASS = 30, 10, 0.7
GOLD_ANSWERS: Final = 60


def answer(
    person: int, bad: int, real: IntArray, generator: np.random.Generator
) -> int:
    """What a person says; takes a good one's vote out of ``real``."""
    if person < bad:
        # Half of the bad ones press anything, half always the same key.
        return int(generator.integers(4)) if person % 2 else VERDICTS.index("neutral")
    verdict = int(generator.choice(len(VERDICTS), p=real / real.sum()))
    real[verdict] -= 1
    return verdict


def label(
    tallies: IntArray, bad: int, generator: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """(N, crowd) votes and (N,) verdicts by majority, ``NO_LABEL`` where disputed."""
    votes = np.full((len(tallies), CROWD), NO_LABEL)
    verdicts = np.full(len(tallies), NO_LABEL)
    for face, real in enumerate(tallies.copy()):
        tally = [0] * len(VERDICTS)
        for person in generator.permutation(CROWD):
            verdict = answer(int(person), bad, real, generator)
            votes[face, person] = verdict
            tally[verdict] += 1
            decision = decide(tally)
            if decision.state != "open":
                break
        if decision.verdict is not None:
            verdicts[face] = VERDICTS.index(decision.verdict)
    return votes, verdicts


def crowdlab(votes: IntArray, probabilities: Float64Array) -> IntArray:
    """The verdicts of cleanlab's consensus, which was measured and not taken."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    known = np.unique(votes[votes != NO_LABEL])
    labels = np.where(votes != NO_LABEL, np.searchsorted(known, votes), np.nan)
    voices = translate(votes, probabilities)[:, known]
    voices /= voices.sum(axis=1, keepdims=True)
    result = get_label_quality_multiannotator(labels, voices, verbose=False)
    chosen: IntArray = result["label_quality"]["consensus_label"].to_numpy(np.int64)
    return known[chosen]


def gold_pauses_after(
    sure: IntArray, person: int, bad: int, generator: np.random.Generator
) -> int | None:
    """After how many gold answers somebody is paused; None if never."""
    right: list[bool] = []
    for face in generator.permutation(len(sure))[:GOLD_ANSWERS]:
        real = sure[face].copy()
        truth = int(real.argmax())
        right.append(answer(person, bad, real, generator) == truth)
        window = right[-GOLD_WINDOW:]
        if len(window) >= GOLD_MINIMUM and sum(window) < GOLD_PASS * len(window):
            return len(right)
    return None


def main() -> None:
    given = curation.arguments(__doc__ or "")
    classifier = EmotionClassifier.load()
    faces = curation.load(given.data, "validation", classifier)
    assert faces.votes is not None
    tallies = curation.verdict_votes(faces.votes)
    kept = tallies.sum(axis=1) >= CROWD - 1
    tallies = tallies[kept]
    probabilities = curation.probabilities_of(classifier, faces.take(kept))
    truth = curation.majority(tallies)
    sure = tallies[tallies.max(axis=1) >= 9]
    rows, plotted = [], []
    for bad in BAD:
        scores = []
        for seed in range(ROUNDS):
            generator = np.random.default_rng(seed)
            votes, verdicts = label(tallies, bad, generator)
            weighed = weigh_votes(votes, probabilities)
            alone = weigh_votes(votes, None)
            judged = (verdicts != NO_LABEL) & (truth != NO_LABEL)
            disputed = (verdicts == NO_LABEL) & (truth != NO_LABEL)
            scores.append(
                (
                    (verdicts == truth)[judged].mean(),
                    (alone.verdicts == truth)[judged].mean(),
                    (weighed.verdicts == truth)[judged].mean(),
                    (crowdlab(votes, probabilities) == truth)[judged].mean(),
                    (weighed.verdicts == truth)[disputed].mean(),
                    (verdicts == NO_LABEL).mean(),
                    (votes != NO_LABEL).sum() / len(votes),
                    weighed.reliability[bad:].min()
                    - (weighed.reliability[:bad].max() if bad else np.nan),
                )
            )
        drawn = np.array(scores)
        mean, spread = drawn.mean(axis=0), drawn.std(axis=0)
        plotted.append((bad, mean, spread))
        rows.append(
            [
                f"{bad} of {CROWD}",
                *(f"{100 * mean[i]:.1f} % ± {100 * spread[i]:.1f}" for i in range(4)),
                f"{100 * mean[5]:.1f} %",
                f"{100 * mean[4]:.1f} %",
                f"{mean[6]:.2f}",
                "-" if bad == 0 else ("yes" if (drawn[:, 7] > 0).all() else "no"),
            ]
        )
    text = table(
        [
            "bad annotators",
            "majority is right",
            "weighted, without the model",
            "weighted, with the model",
            "cleanlab, with the model",
            "disputed",
            "of those, weighted is right",
            "votes a face",
            "bad ones rated below all good ones",
        ],
        rows,
    )
    generator = np.random.default_rng(0)
    pauses = {
        "presses anything": [
            gold_pauses_after(sure, 1, 2, generator) for _ in range(200)
        ],
        "always says neutral": [
            gold_pauses_after(sure, 0, 2, generator) for _ in range(200)
        ],
        "good": [gold_pauses_after(sure, 5, 2, generator) for _ in range(200)],
    }
    gold_rows = []
    for kind, after in pauses.items():
        found = [answers for answers in after if answers is not None]
        gold_rows.append(
            [
                kind,
                f"{len(found)} of {len(after)}",
                f"{np.median(found):.0f}" if found else "-",
                f"{np.median(found) * GOLD_EVERY:.0f}" if found else "-",
            ]
        )
    gold = table(
        ["annotator", "paused", "after gold answers", "after faces, about"], gold_rows
    )
    print(text, gold, sep="\n\n")
    if not given.write:
        return
    figure = Figure(figsize=(6.4, 3.4))
    axes = figure.subplots()
    for offset, (index, name) in enumerate(
        (
            (0, "majority"),
            (1, "weighted, people alone"),
            (2, "weighted, with the model"),
        )
    ):
        axes.bar(
            [place + 0.27 * offset for place in range(len(plotted))],
            [100 * mean[index] for _, mean, _ in plotted],
            0.25,
            yerr=[100 * spread[index] for _, _, spread in plotted],
            label=name,
            color=("#a9b8b2", "#3568b8", "#0b6a56")[offset],
        )
    axes.set_xticks(
        [place + 0.27 for place in range(len(plotted))],
        [f"{bad} of {CROWD} bad" for bad, _, _ in plotted],
    )
    axes.set_ylabel("labels that are right, %")
    axes.set_ylim(50, 100)
    axes.legend(loc="lower left", fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    put_picture("curation-crowd", to_png(figure))
    put(
        "crowd",
        f"{text}\n\n{gold}\n\n{model_line(classifier.manifest)}",
        curation.REPORT,
    )


if __name__ == "__main__":
    main()
