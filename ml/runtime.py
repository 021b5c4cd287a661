"""One door to ONNX Runtime: which processor a network runs on, and with which options.

``auto`` takes CUDA where this build of ONNX Runtime has it and a GPU answers, else the
CPU. ``cuda`` refuses to start without: a host that was bought for its GPU should not
quietly do without it.
"""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

import onnxruntime as ort

from ml.manifest import ModelFileError

Provider = Literal["auto", "cpu", "cuda"]

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


def open_session(
    data: bytes, threads: int = 1, provider: Provider = "auto"
) -> ort.InferenceSession:
    """A network ready to run.

    Raises ``ModelFileError`` where ONNX Runtime refuses the file, and
    ``ProviderUnavailable``.
    """
    options = ort.SessionOptions()
    # On shared cores two threads for one small network are slower than one:
    # a host scales by worker processes.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = providers_for(provider)
    try:
        session = ort.InferenceSession(data, options, providers=wanted)
    except Exception as error:  # ONNX Runtime raises classes of its own C++ side.
        raise ModelFileError(f"ONNX Runtime refuses the model: {error}") from error
    if len(wanted) > 1 and session.get_providers()[0] != CUDA:
        # ONNX Runtime falls back by itself where the driver or a library is missing.
        if provider == "cuda":
            raise ProviderUnavailable(
                "CUDA was asked for, and no GPU answers: see to its driver, and that "
                "this process may use it, or let the provider be auto."
            )
        logger.warning("no GPU answers: networks run on the CPU")
    return session
