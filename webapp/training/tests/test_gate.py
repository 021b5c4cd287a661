"""Bad candidates, and whether the gate says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest

from ml.inference import SHIPPED_MODEL, EmotionClassifier, softmax
from ml.manifest import read_model, sha256_of
from ml.retraining import RetrainingData, load_retraining, refit_head, with_head
from webapp.training.errors import CannotCompare
from webapp.training.services.comparing import JudgedFaces, Verdict, compare

Head = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]

EVERY: Final = 3
"""A head refitted on a third of the base's faces errs as one on all of them, sooner."""


@pytest.fixture(scope="module")
def champion() -> EmotionClassifier:
    return EmotionClassifier.load()


@pytest.fixture(scope="module")
def data(champion: EmotionClassifier) -> RetrainingData:
    return load_retraining(champion.manifest)


def with_another(champion: EmotionClassifier, head: Head) -> EmotionClassifier:
    file = with_head(read_model(SHIPPED_MODEL), *head)
    manifest = replace(
        champion.manifest,
        version="candidate",
        sha256=sha256_of(file),
        size_bytes=len(file),
        training={"body_sha256": champion.manifest.sha256},
    )
    return EmotionClassifier(manifest, file)


def judged(
    champion: EmotionClassifier, candidate: EmotionClassifier, data: RetrainingData
) -> Verdict:
    spec = champion.manifest.input
    none = np.zeros((0, spec.size_px, spec.size_px, spec.channels), np.uint8)
    return compare(
        champion=champion,
        candidate=candidate,
        base=JudgedFaces(
            data.evaluation_labels,
            features={data.model_sha256: data.evaluation_features},
        ),
        curated=JudgedFaces(np.zeros(0, np.int64), crops=none),
    )


def no_number(champion: EmotionClassifier, data: RetrainingData) -> Head:
    return champion.head_weight * np.float32(np.nan), champion.head_bias


def constant(champion: EmotionClassifier, data: RetrainingData) -> Head:
    return champion.head_weight * 0, np.array([9, 0, 0, 0], np.float32)


def dropped_class(champion: EmotionClassifier, data: RetrainingData) -> Head:
    return champion.head_weight, champion.head_bias + np.array(
        [0, -1000, 0, 0], np.float32
    )


def shuffled_labels(champion: EmotionClassifier, data: RetrainingData) -> Head:
    targets = np.random.default_rng(0).permutation(data.targets[::EVERY])
    return refit_head(
        data.features[::EVERY],
        targets,
        data.weights[::EVERY],
        (champion.head_weight * 0, champion.head_bias * 0),
    )


def wrong_order(champion: EmotionClassifier, data: RetrainingData) -> Head:
    order = [1, 2, 3, 0]
    return champion.head_weight[order], champion.head_bias[order]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (no_number, "answers with what is no number"),
        (constant, "gives every face the same answer"),
        (dropped_class, "never says sad"),
        (shuffled_labels, "Worse: accuracy|never says"),
        (wrong_order, "Worse: accuracy"),
    ],
)
def test_bad_candidate_is_rejected(
    champion: EmotionClassifier,
    data: RetrainingData,
    bad: Callable[[EmotionClassifier, RetrainingData], Head],
    words: str,
) -> None:
    verdict = judged(champion, with_another(champion, bad(champion, data)), data)

    decision = verdict.to_dict()
    assert decision["outcome"] == "reject"
    assert re.search(words, decision["findings"][0]["reason"])


def test_the_champion_itself_passes(
    champion: EmotionClassifier, data: RetrainingData
) -> None:
    verdict = judged(champion, champion, data)

    assert verdict.to_dict()["outcome"] == "promote"
    assert verdict.report["sets"][0]["interval"][0] > -0.01


def test_harm_on_the_curated_hold_out_is_seen_before_it_is_large(
    champion: EmotionClassifier, data: RetrainingData
) -> None:
    """Twenty faces that only the champion reads right, and no other that suffers."""
    crops = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 1), np.uint8)
    features = champion.features(crops)
    said = (features @ champion.head_weight.T + champion.head_bias).argmax(axis=1)
    other = (said + 1) % 4
    # The base asks for what the champion says of it, as in a head run.
    base = data.features[::EVERY]
    own = softmax(base @ champion.head_weight.T + champion.head_bias)
    head = refit_head(
        np.concatenate([base, features]),
        np.concatenate([own.astype(np.float32), np.eye(4, dtype=np.float32)[other]]),
        np.concatenate([data.weights[::EVERY], np.full(20, 12 / EVERY, np.float32)]),
        (champion.head_weight, champion.head_bias),
    )
    verdict = compare(
        champion=champion,
        candidate=with_another(champion, head),
        base=JudgedFaces(
            data.evaluation_labels,
            features={data.model_sha256: data.evaluation_features},
        ),
        curated=JudgedFaces(
            said, crops=crops, slices={"dark faces": np.ones(20, bool)}
        ),
    )

    reasons = [row["reason"] for row in verdict.to_dict()["findings"]]
    assert verdict.to_dict()["outcome"] == "reject"
    assert not any("Worse: accuracy on the frozen" in reason for reason in reasons)
    assert any("Worse: the curated hold-out" in reason for reason in reasons)
    assert any("Worse: dark faces" in reason for reason in reasons)


def test_more_labels_count_those_that_will_train(
    champion: EmotionClassifier, data: RetrainingData
) -> None:
    """A hundred faces are missing, and one label in four comes to judge."""
    spec = champion.manifest.input
    verdict = compare(
        champion=champion,
        candidate=champion,
        base=JudgedFaces(
            data.evaluation_labels[:100],
            features={data.model_sha256: data.evaluation_features[:100]},
        ),
        curated=JudgedFaces(
            np.zeros(0, np.int64),
            crops=np.zeros((0, spec.size_px, spec.size_px, spec.channels), np.uint8),
        ),
    )

    assert verdict.decision.more_labels == 400


def test_large_hold_out_is_judged_by_itself(
    champion: EmotionClassifier, data: RetrainingData
) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (240, 48, 48, 1), np.uint8)
    said = (champion.features(crops) @ champion.head_weight.T).argmax(axis=1)
    verdict = compare(
        champion=champion,
        candidate=champion,
        base=JudgedFaces(
            data.evaluation_labels,
            features={data.model_sha256: data.evaluation_features},
        ),
        curated=JudgedFaces(said, crops=crops),
    )

    assert verdict.notes == ()
    reasons = [row["reason"] for row in verdict.to_dict()["findings"]]
    assert any("accuracy on the curated hold-out" in reason for reason in reasons)


def test_versions_without_faces_in_common_are_not_compared(
    champion: EmotionClassifier, data: RetrainingData
) -> None:
    stranger = EmotionClassifier(
        replace(champion.manifest, version="stranger", training={}),
        read_model(SHIPPED_MODEL),
    )
    none = np.zeros((0, 48, 48, 1), np.uint8)
    with pytest.raises(CannotCompare, match="Set FER_DATASET_DIR"):
        compare(
            champion=champion,
            candidate=stranger,
            base=JudgedFaces(
                data.evaluation_labels, features={"f" * 64: data.evaluation_features}
            ),
            curated=JudgedFaces(np.zeros(0, np.int64), crops=none),
        )
