from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ml.export import to_onnx
from ml.inference import SHIPPED_MODEL, EmotionClassifier, softmax
from ml.labels import EMOTIONS
from ml.manifest import InputSpec, ModelManifest, sha256_of
from ml.models import ModelConfig, build_network
from ml.retraining import (
    RetrainingError,
    collect,
    load_retraining,
    refit_head,
    save_retraining,
    with_head,
)
from ml.tests.faces import draw_set


@pytest.fixture(scope="module")
def model() -> tuple[ModelManifest, bytes]:
    network = build_network(ModelConfig("base")).eval()
    data = to_onnx(network, InputSpec(), flip=True)
    manifest = ModelManifest(
        version="made",
        architecture="base",
        sha256=sha256_of(data),
        size_bytes=len(data),
        created_at="2020-01-01T00:00:00+00:00",
    )
    return manifest, data


def test_features_are_what_the_head_sees(model: tuple[ModelManifest, bytes]) -> None:
    classifier = EmotionClassifier(*model)
    crops = draw_set(3).crops
    features = classifier.features(crops)
    logits = features @ classifier.head_weight.T + classifier.head_bias
    assert np.allclose(logits, classifier.read_crops(crops).logits, atol=1e-4)


def test_shipped_features_belong_to_the_shipped_model() -> None:
    classifier = EmotionClassifier.load()
    kept = load_retraining(classifier.manifest)
    assert kept.features.shape[1] == classifier.head_weight.shape[1]
    assert len(kept.features) >= 5000
    assert np.allclose(kept.targets.sum(axis=1), 1, atol=1e-3)
    assert (SHIPPED_MODEL.parent / "retraining.npz").stat().st_size < 6_000_000
    logits = kept.evaluation_features @ classifier.head_weight.T + classifier.head_bias
    accuracy = (logits.argmax(axis=1) == kept.evaluation_labels).mean()
    told = classifier.manifest.metrics["validation"]["consensus"]
    assert len(kept.evaluation_labels) == told["n"]
    assert accuracy == pytest.approx(told["accuracy"], abs=0.002)


def test_saved_features_come_back(
    model: tuple[ModelManifest, bytes], tmp_path: Path
) -> None:
    classifier = EmotionClassifier(*model)
    train, validation = draw_set(8, votes=True), draw_set(3, 1, votes=True)
    kept = collect(classifier, train, validation, sample=20)
    path = tmp_path / "retraining.npz"
    save_retraining(path, kept)
    loaded = load_retraining(classifier.manifest, path)
    assert loaded.features.shape == (20, 128)
    spread = np.ptp(np.concatenate([kept.features, kept.evaluation_features]), axis=0)
    assert (np.abs(loaded.features - kept.features) <= spread / 500 + 1e-6).all()
    assert np.allclose(loaded.weights, 0.8, atol=0.01)
    assert np.array_equal(loaded.evaluation_labels, validation.folder_labels)
    child = replace(
        classifier.manifest,
        sha256="0" * 64,
        training={"body_sha256": classifier.manifest.sha256},
    )
    assert len(load_retraining(child, path).features) == 20
    with pytest.raises(RetrainingError, match="of another model"):
        load_retraining(replace(child, training={}), path)


def test_damaged_features_are_refused(
    model: tuple[ModelManifest, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "retraining.npz"
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(RetrainingError, match="cannot be read"):
            load_retraining(model[0], path)
    with pytest.raises(RetrainingError, match="cannot be read"):
        load_retraining(model[0], tmp_path / "nowhere.npz")


def _separable(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, n)
    middles = generator.normal(0, 2, (4, 12))
    features = middles[labels] + generator.normal(0, 0.5, (n, 12))
    return features.astype(np.float32), labels


def test_features_in_half_precision_are_read_as_well(
    model: tuple[ModelManifest, bytes], tmp_path: Path
) -> None:
    features = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float16)
    np.savez_compressed(
        tmp_path / "retraining.npz",
        model_sha256=np.array(model[0].sha256),
        train_features=features[:3],
        train_targets=np.eye(4, dtype=np.float16)[:3],
        train_weights=np.ones(3, np.float16),
        evaluation_features=features[3:],
        evaluation_labels=np.zeros(2, np.int8),
    )
    loaded = load_retraining(model[0], tmp_path / "retraining.npz")
    assert np.array_equal(loaded.features, features[:3].astype(np.float32))
    assert np.array_equal(loaded.evaluation_features, features[3:].astype(np.float32))


def test_refitted_head_learns_the_labels_and_is_the_same_each_time() -> None:
    features, labels = _separable()
    targets = np.eye(4, dtype=np.float32)[labels]
    start = (np.zeros((4, 12), np.float32), np.zeros(4, np.float32))
    weights = np.ones(len(labels), np.float32)
    weight, bias = refit_head(features, targets, weights, start)
    assert ((features @ weight.T + bias).argmax(axis=1) == labels).mean() > 0.98
    again = refit_head(features, targets, weights, start)
    assert np.array_equal(weight, again[0])
    assert np.array_equal(bias, again[1])


def test_head_that_must_stay_stays_and_weightless_faces_do_not_pull() -> None:
    features, labels = _separable()
    wrong = np.eye(4, dtype=np.float32)[(labels + 1) % 4]
    generator = np.random.default_rng(1)
    start = (
        generator.normal(size=(4, 12)).astype(np.float32),
        np.zeros(4, np.float32),
    )
    weights = np.ones(len(labels), np.float32)
    kept, _ = refit_head(features, wrong, weights, start, stay=1e6)
    assert np.allclose(kept, start[0], atol=1e-4)
    right = np.eye(4, dtype=np.float32)[labels]
    both = np.concatenate([features, features])
    shares = np.concatenate([weights, 0 * weights])
    mixed, _ = refit_head(both, np.concatenate([right, wrong]), shares, start)
    alone, _ = refit_head(features, right, weights, start)
    assert np.allclose(mixed, alone, atol=1e-2)


def test_model_with_another_head_answers_with_it(
    model: tuple[ModelManifest, bytes],
) -> None:
    manifest, data = model
    classifier = EmotionClassifier(manifest, data)
    crops = draw_set(2).crops
    bias = np.array([0, 0, 9, 0], np.float32)
    changed = with_head(data, classifier.head_weight * 0, bias)
    child = EmotionClassifier(
        replace(manifest, sha256=sha256_of(changed), size_bytes=len(changed)), changed
    )
    reading = child.read_crops(crops)
    assert np.allclose(reading.logits, bias, atol=1e-4)
    assert {scores.label for scores in reading.scores} == {EMOTIONS[2]}
    assert np.allclose(softmax(reading.logits).sum(axis=1), 1)
    assert np.allclose(reading.feature_map, classifier.read_crops(crops).feature_map)
    with pytest.raises(RetrainingError, match="is \\(4, 128\\), not"):
        with_head(data, np.zeros((4, 7), np.float32), bias)
