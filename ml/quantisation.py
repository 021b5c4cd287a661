"""A model file in single precision -> one that computes in eight bits, and back.

Convolutions are what takes the time. In eight bits a face takes about half of it
where the processor has instructions for that, and the file half of its size
(docs/models.md); what is left in single precision is small, or would lose by it.
Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018. Never imports torch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml.inference import INPUT_NAME, Float32Array, UInt8Array
from ml.manifest import Normalisation
from ml.preprocessing import normalise
from ml.runtime import fold

# Imported where it is needed, for the reason that ml/inference.py gives.
if TYPE_CHECKING:
    import onnx

_FACES: Final = 512
"""As many tell the range of what passes between two convolutions."""
_AT_ONCE: Final = 32

_FOLDED: Final = "ConvBnFusion_W_"
_SINGLE: Final = ".single"
_VALUES: Final = "_quantized"
_STEP: Final = "_scale"
_ZERO: Final = "_zero_point"
_FACTOR: Final = ".factor"


def quantise(data: bytes, crops: UInt8Array, normalisation: Normalisation) -> bytes:
    """The same network with its convolutions in eight bits.

    ``data`` is what ``ml.export.to_onnx`` gives; uint8 (N, S, S, C) ``crops`` are
    faces as it will meet them. Normalisation is folded into the convolutions; what
    ``read_weights`` needs to part them again is kept.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    single = onnx.load_model_from_string(data)
    sample = crops[:: max(1, len(crops) // _FACES)][:_FACES]
    # The library advises on the root's own log to do what is done here; what others
    # say meanwhile goes by other loggers.
    root = logging.getLogger()
    root.addFilter(_nothing)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "folded.onnx"
            fold(data, path)
            folded = onnx.load(path)
            _name_after_weights(folded)
            path = Path(folder) / "eight.onnx"
            quantize_static(
                folded,
                path,
                _Faces(normalise(sample, normalisation)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # With a convolution goes what cuts its answers off.
                op_types_to_quantize=["Conv", "Clip", "Relu"],
                nodes_to_exclude=_stems(folded),
            )
            model = onnx.load(path)
    finally:
        root.removeFilter(_nothing)
    _keep_normalisation(model, single)
    del model.graph.value_info[:], model.metadata_props[:]
    # ONNX Runtime names all that it knows; the network is of the first alone.
    standard = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    return bytes(model.SerializeToString())


def read_weights(model: onnx.ModelProto) -> dict[str, Float32Array]:
    """The tensors of body and head by their names in torch, from a file in single or
    half precision or in eight bits; from the latter they are rounded."""
    import onnx

    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.startswith(("body.", "head."))
    }
    weights = {}
    for name, values in tensors.items():
        if name.endswith((_STEP, _ZERO, _FACTOR)):
            continue
        own = name.removesuffix(_VALUES)
        if own != name:
            # A weight's step bears its own name, a bias's that of its values.
            step = tensors.get(own + _STEP, tensors.get(name + _STEP))
            values = values * _along_rows(step, values)
        if own + _FACTOR in tensors:
            values = values / _along_rows(tensors[own + _FACTOR], values)
        weights[own] = np.array(values, np.float32)
    return weights


def _nothing(record: logging.LogRecord) -> bool:
    return False


class _Faces:
    """Hands normalised faces to the library's calibration."""

    def __init__(self, faces: Float32Array) -> None:
        self._parts: Iterator[Float32Array] = iter(
            np.split(faces, range(_AT_ONCE, len(faces), _AT_ONCE))
        )

    def get_next(self) -> dict[str, Any] | None:
        part = next(self._parts, None)
        return None if part is None else {INPUT_NAME: part}


def _name_after_weights(model: onnx.ModelProto) -> None:
    """Take off the names of weights what casting and folding added."""
    own = {
        tensor.name: tensor.name.removeprefix(_FOLDED).removesuffix(_SINGLE)
        for tensor in model.graph.initializer
        if tensor.name.startswith(("body.", _FOLDED))
    }
    for tensor in model.graph.initializer:
        tensor.name = own.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [own.get(name, name) for name in node.input]


def _stems(model: onnx.ModelProto) -> list[str]:
    """Convolutions that see the picture itself: few sums each, so that eight bits
    take longer, and what they lose is lost for all."""
    inputs = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        and inputs[node.input[1]][1] * _groups(node) <= 3  # The picture's channels.
    ]


def _groups(convolution: onnx.NodeProto) -> int:
    return next((one.i for one in convolution.attribute if one.name == "group"), 1)


def _keep_normalisation(model: onnx.ModelProto, single: onnx.ModelProto) -> None:
    """Add what was folded into convolutions, which no node uses any more."""
    import onnx

    present = {tensor.name for tensor in model.graph.initializer}
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in single.graph.initializer
    }
    convolutions = {
        node.output[0]: node for node in single.graph.node if node.op_type == "Conv"
    }
    for node in single.graph.node:
        if node.op_type != "BatchNormalization" or node.input[1] in present:
            continue
        _, weight, *bias = convolutions[node.input[0]].input
        # The exporter gives one without a bias one of zeros, under another name.
        names = [*node.input[1:], *(one for one in bias if one.startswith("body."))]
        added = {name: tensors[name] for name in names}
        scale, _, _, variance = (tensors[name] for name in node.input[1:])
        epsilon = next(one.f for one in node.attribute if one.name == "epsilon")
        factor = weight.removesuffix(_SINGLE) + _FACTOR
        added[factor] = scale / np.sqrt(variance + epsilon)
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(values, np.float32), name)
            for name, values in added.items()
        )


def _along_rows(vector: Any, values: Any) -> Any:
    """One number for each of a weight's rows, so that the two can be multiplied."""
    return np.reshape(vector, (-1,) + (1,) * (values.ndim - 1))
