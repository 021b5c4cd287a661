"""One door to ONNX Runtime: which processor a network runs on, and with which options.

``auto`` takes CUDA where this build of ONNX Runtime has it and a GPU answers, else the
CPU. ``cuda`` refuses to start without: a host that was bought for its GPU should not
quietly do without it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final, Literal

import onnxruntime as ort

from ml.manifest import ModelFileError

Provider = Literal["auto", "cpu", "cuda"]

_PROCESSOR: Final = Path("/proc/cpuinfo")

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"

_CUDA_OPTIONS: Final = {
    # The default tries every algorithm anew for each shape, and photos have many.
    "cudnn_conv_algo_search": "HEURISTIC",
    # Grow by what is needed, not in powers of two: several workers share a GPU.
    "arena_extend_strategy": "kSameAsRequested",
}

logger = logging.getLogger(__name__)


class ProviderUnavailable(Exception):
    """The processor that was asked for is not there; says what to do."""


def best_provider(choice: Provider) -> str:
    """The first of what this build of ONNX Runtime offers and the choice allows. It
    offers more than networks here run on."""
    known = CUDA in ort.get_available_providers()
    return CUDA if known and choice != "cpu" else CPU


def providers_for(choice: Provider) -> list[Any]:
    """What to hand to ONNX Runtime, the best first. Raises ``ProviderUnavailable``."""
    if best_provider(choice) == CPU:
        if choice == "cuda":
            raise ProviderUnavailable(
                "CUDA was asked for, and this build of ONNX Runtime has none: install "
                "onnxruntime-gpu in place of onnxruntime, or let the provider be auto."
            )
        return [CPU]
    # Finds CUDA's libraries where they came as Python packages.
    ort.preload_dlls()
    return [(CUDA, _CUDA_OPTIONS), CPU]


def fold(data: bytes, path: Path) -> None:
    """Write a network with what can be worked out beforehand worked out: casts, and
    normalisation as a part of convolutions. It holds ONNX's own operators alone.

    Raises ``ModelFileError`` where ONNX Runtime refuses the file.
    """
    options = _options(threads=1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    _open(data, options, [CPU])


def open_session(
    data: bytes, threads: int = 1, provider: Provider = "auto"
) -> ort.InferenceSession:
    """A network ready to run.

    Raises ``ModelFileError`` where ONNX Runtime refuses the file, and
    ``ProviderUnavailable``.
    """
    wanted = providers_for(provider)
    session = _open(data, _options(threads), wanted)
    if len(wanted) > 1 and session.get_providers()[0] != CUDA:
        # ONNX Runtime falls back by itself where the driver or a library is missing.
        if provider == "cuda":
            raise ProviderUnavailable(
                "CUDA was asked for, and no GPU answers: see to its driver, and that "
                "this process may use it, or let the provider be auto."
            )
        logger.warning("no GPU answers: networks run on the CPU")
    return session


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # On shared cores two threads for one small network are slower than one:
    # a host scales by worker processes.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not _adds_up_eight_bits():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _adds_up_eight_bits() -> bool:
    """Whether the processor multiplies and adds eight bits in one step (VNNI).

    Those of x86 that do it in two cut large sums off between them, unless ONNX Runtime
    is told to take a slower way; told so, it takes it on the others, too.
    """
    try:
        flags = _PROCESSOR.read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def _open(
    data: bytes, options: ort.SessionOptions, providers: list[Any]
) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(data, options, providers=providers)
    except Exception as error:  # ONNX Runtime raises classes of its own C++ side.
        raise ModelFileError(f"ONNX Runtime refuses the model: {error}") from error
