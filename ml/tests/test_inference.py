from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from ml.detection import FaceDetector
from ml.inference import (
    HEAD_BIAS_NAME,
    HEAD_WEIGHT_NAME,
    INPUT_NAME,
    LOGITS_NAME,
    MAX_BATCH,
    EmotionClassifier,
    softmax,
)
from ml.labels import Emotion
from ml.manifest import (
    InputSpec,
    ModelFileError,
    ModelManifest,
    sha256_of,
)
from ml.models import ModelConfig, build_network
from ml.preprocessing import crop_faces
from ml.tests.faces import draw_set
from tests.models import write_tiny_model
from tests.pictures import astronaut

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped() -> EmotionClassifier:
    return EmotionClassifier.load()


def _manifest_of(data: bytes, spec: InputSpec | None = None) -> ModelManifest:
    return ModelManifest(
        version="made",
        architecture="made",
        sha256=sha256_of(data),
        size_bytes=len(data),
        created_at="2020-01-01T00:00:00+00:00",
        input=spec or InputSpec(),
    )


def test_a_smile_is_read_as_happy(shipped: EmotionClassifier) -> None:
    photo = astronaut()
    reading = shipped.read(photo, FaceDetector().detect(photo).faces)
    (scores,) = reading.scores
    assert scores.label is Emotion.HAPPY
    assert sum(scores.probabilities) == pytest.approx(1)
    assert not scores.not_sure


def test_batches_give_what_single_faces_give(shipped: EmotionClassifier) -> None:
    crops = np.repeat(draw_set(5).crops, 4, axis=0)
    assert len(crops) > MAX_BATCH
    together = shipped.read_crops(crops)
    for i in (0, 33, 79):
        alone = shipped.read_crops(crops[i : i + 1])
        assert np.allclose(alone.logits[0], together.logits[i], atol=1e-4)
    empty = shipped.read_crops(crops[:0])
    assert (empty.logits.shape, empty.scores) == ((0, 4), ())


def test_class_activation_averages_to_the_logits_of_the_face_itself(
    shipped: EmotionClassifier,
) -> None:
    crops = draw_set(3).crops
    reading = shipped.read_crops(crops)
    maps = shipped.class_activation(reading.feature_map)
    logits = maps.mean(axis=(2, 3)) + shipped.head_bias
    mirrored = shipped.read_crops(np.ascontiguousarray(crops[:, :, ::-1]))
    other = shipped.class_activation(mirrored.feature_map).mean(axis=(2, 3))
    both = (logits + other + shipped.head_bias) / 2
    folded = bool(shipped.manifest.training["flip_folded"])
    wanted = both if folded else logits
    assert np.allclose(wanted, reading.logits, atol=1e-3)


def test_turning_a_face_over_changes_nothing_where_the_flip_is_folded(
    shipped: EmotionClassifier,
) -> None:
    from ml.export import to_onnx

    data = to_onnx(build_network(ModelConfig("base")).eval(), InputSpec(), flip=True)
    classifier = EmotionClassifier(_manifest_of(data), data)
    crops = draw_set(2).crops
    first = classifier.read_crops(crops).logits
    second = classifier.read_crops(np.ascontiguousarray(crops[:, :, ::-1])).logits
    assert np.allclose(first, second, atol=1e-4)


def test_not_sure_follows_the_manifests_bound(shipped: EmotionClassifier) -> None:
    manifest = shipped.manifest
    calibration = replace(manifest.calibration, temperature=1.0, not_sure_below=0.6)
    strict = EmotionClassifier(
        replace(manifest, calibration=calibration),
        (ROOT / "ml" / "weights" / "champion.onnx").read_bytes(),
    )
    logits = np.log(np.array([[0.59, 0.21, 0.1, 0.1], [0.61, 0.19, 0.1, 0.1]]))
    sure = [scores.not_sure for scores in strict.scores(logits.astype(np.float32))]
    assert sure == [True, False]


def test_softmax_stands_large_logits() -> None:
    rows = softmax(np.array([[1e4, 0, 0, -1e4]], np.float32))
    assert rows[0].tolist() == [1, 0, 0, 0]


def test_files_that_break_the_contract_are_refused(
    shipped: EmotionClassifier,
) -> None:
    data = (ROOT / "ml" / "weights" / "champion.onnx").read_bytes()

    def refused(changed: bytes, message: str, spec: InputSpec | None = None) -> None:
        with pytest.raises(ModelFileError, match=message):
            EmotionClassifier(_manifest_of(changed, spec), changed)

    refused(b"no model", "no ONNX model")
    refused(data, "model input is", InputSpec(size_px=64))
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name == HEAD_BIAS_NAME:
            tensor.name = "other"
    refused(model.SerializeToString(), "has no tensor 'head.bias'")
    outside = onnx.load_model_from_string(data)
    outside.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    refused(outside.SerializeToString(), "outside its file")


def test_what_serves_never_imports_torch() -> None:
    code = (
        "import sys\n"
        "import ml.cli, ml.predict, ml.evaluate, ml.calibrate, ml.quality, ml.gate\n"
        "from ml.inference import EmotionClassifier\n"
        "EmotionClassifier.load()\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'cleanlab', 'django'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_one_module_knows_torchvision() -> None:
    knowing = {
        path.name
        for path in (ROOT / "ml").rglob("*.py")
        if "tests" not in path.parts
        and any(
            line.strip().startswith(("import torchvision", "from torchvision"))
            for line in path.read_text().splitlines()
        )
    }
    assert knowing == {"vision.py"}


def test_crops_of_a_photo_are_those_of_the_shared_room(
    shipped: EmotionClassifier,
) -> None:
    photo = astronaut()
    faces = FaceDetector().detect(photo).faces
    crops = crop_faces(photo, faces, shipped.manifest.input)
    assert np.array_equal(
        shipped.read(photo, faces).logits, shipped.read_crops(crops).logits
    )


def _rewritten(path: Path, rewrite: Callable[[onnx.GraphProto], None]) -> bytes:
    model = onnx.load_model(path)
    rewrite(model.graph)
    return bytes(model.SerializeToString())


def _one_bias_too_many(graph: onnx.GraphProto) -> None:
    _replace(graph, HEAD_BIAS_NAME, np.zeros(5, np.float32))


def _head_without_rows(graph: onnx.GraphProto) -> None:
    _replace(graph, HEAD_WEIGHT_NAME, np.zeros(4, np.float32))


def _head_of_no_type(graph: onnx.GraphProto) -> None:
    _head(graph).data_type = onnx.TensorProto.UNDEFINED


def _head_cut_off(graph: onnx.GraphProto) -> None:
    _head(graph).raw_data = _head(graph).raw_data[:-3]


def _head_of_words(graph: onnx.GraphProto) -> None:
    words = np.full(_head(graph).dims, "word", object)
    _head(graph).CopyFrom(onnx.numpy_helper.from_array(words, HEAD_WEIGHT_NAME))


def _head(graph: onnx.GraphProto) -> onnx.TensorProto:
    head: onnx.TensorProto = next(
        one for one in graph.initializer if one.name == HEAD_WEIGHT_NAME
    )
    return head


def _same_answer_to_any_number_of_faces(graph: onnx.GraphProto) -> None:
    graph.node[-1].output[0] = "unused"
    constant = onnx.numpy_helper.from_array(np.zeros((1, 4), np.float32), "constant")
    graph.initializer.append(constant)
    node = onnx.helper.make_node("Identity", ["constant"], [LOGITS_NAME])
    graph.node.append(node)


def _one_face_at_a_time(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _faces_as_integers(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    node = onnx.helper.make_node("Cast", [INPUT_NAME], ["cast"], to=1)
    graph.node[0].input[0] = "cast"
    graph.node.insert(0, node)


def _logits_in_a_sequence(graph: onnx.GraphProto) -> None:
    graph.node[-1].output[0] = "one"
    graph.node.append(onnx.helper.make_node("SequenceConstruct", ["one"], ["logits"]))
    (logits,) = (output for output in graph.output if output.name == LOGITS_NAME)
    logits.CopyFrom(
        onnx.helper.make_tensor_sequence_value_info(
            LOGITS_NAME, onnx.TensorProto.FLOAT, None
        )
    )


def _replace(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.float32]) -> None:
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))


@pytest.mark.parametrize(
    "rewrite",
    [
        _one_bias_too_many,
        _head_without_rows,
        _head_of_no_type,
        _head_cut_off,
        _head_of_words,
        _same_answer_to_any_number_of_faces,
        _one_face_at_a_time,
        _faces_as_integers,
        _logits_in_a_sequence,
    ],
)
def test_file_that_does_not_do_what_it_declares_is_refused_when_it_is_loaded(
    rewrite: Callable[[onnx.GraphProto], None], tmp_path: Path
) -> None:
    data = _rewritten(write_tiny_model(tmp_path, "tiny"), rewrite)

    with pytest.raises(ModelFileError, match=r"model|logits"):
        EmotionClassifier(_manifest_of(data), data)


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    def spoil(graph: onnx.GraphProto) -> None:
        _replace(graph, "conv", np.full((6, 1, 8, 8), np.nan, np.float32))

    data = _rewritten(write_tiny_model(tmp_path, "tiny"), spoil)
    classifier = EmotionClassifier(_manifest_of(data), data)

    with pytest.raises(ModelFileError, match="no numbers"):
        classifier.features(draw_set(1).crops)
