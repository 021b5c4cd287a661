"""Tiny networks that keep the contract of a model file, for tests of everything
around models."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ml.inference import (
    FEATURE_MAP_NAME,
    FEATURES_NAME,
    HEAD_BIAS_NAME,
    HEAD_WEIGHT_NAME,
    INPUT_NAME,
    LOGITS_NAME,
)
from ml.manifest import ModelManifest, manifest_path

_CHANNELS = 6


def write_tiny_model(folder: Path, version: str, bias: tuple[float, ...] = ()) -> Path:
    """An untrained network with its manifest; ``bias`` (4 logits) bends its answers."""
    generator = np.random.default_rng(len(version))

    def tensor(name: str, *shape: int) -> TensorProto:
        values = generator.normal(0, 0.1, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    head_bias = np.asarray(bias or (0.0, 0.0, 0.0, 0.0), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", [INPUT_NAME, "conv"], ["raw"], strides=[8, 8], name="conv"
            ),
            helper.make_node("Relu", ["raw"], [FEATURE_MAP_NAME]),
            helper.make_node("GlobalAveragePool", [FEATURE_MAP_NAME], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], [FEATURES_NAME]),
            helper.make_node(
                "Gemm",
                [FEATURES_NAME, HEAD_WEIGHT_NAME, HEAD_BIAS_NAME],
                [LOGITS_NAME],
                transB=1,
            ),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(
                INPUT_NAME, TensorProto.FLOAT, ["n", 1, 48, 48]
            )
        ],
        [
            helper.make_tensor_value_info(LOGITS_NAME, TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info(
                FEATURE_MAP_NAME, TensorProto.FLOAT, ["n", _CHANNELS, 6, 6]
            ),
            helper.make_tensor_value_info(
                FEATURES_NAME, TensorProto.FLOAT, ["n", _CHANNELS]
            ),
        ],
        [
            tensor("conv", _CHANNELS, 1, 8, 8),
            tensor(HEAD_WEIGHT_NAME, 4, _CHANNELS),
            numpy_helper.from_array(head_bias, HEAD_BIAS_NAME),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    path = folder / f"{version}.onnx"
    path.write_bytes(data)
    manifest = ModelManifest(
        version=version,
        architecture="tiny",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        created_at="2026-01-01T00:00:00Z",
    )
    manifest_path(path).write_text(manifest.to_json(), encoding="utf-8")
    return path
