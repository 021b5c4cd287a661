"""Where a network starts, if not at random: from another run, from a model that
serves, or from weights that others trained.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import onnx
import torch

from ml.data import FaceSet
from ml.inference import HEAD_BIAS_NAME, HEAD_WEIGHT_NAME
from ml.labels import EMOTIONS
from ml.manifest import Normalisation, load_manifest, read_model, verify_model
from ml.models import (
    FaceNetwork,
    ModelConfig,
    build_network,
    join,
    load_pretrained,
    parts_of,
)
from ml.models.mobile import load_faceres
from ml.models.recognition import load_dlib
from ml.preprocessing import normalise
from ml.quantisation import read_weights

_CALIBRATION_FACES: Final = 500
"""Enough for the statistics of the normalisation."""
_FOREIGN: Final = {".dat": load_dlib, ".json": load_faceres}
"""Formats of networks that learned faces elsewhere, by suffix."""


def knows_faces(path: Path) -> bool:
    """Whether the file, by its suffix, is of a network that learned faces elsewhere;
    torchvision's learned whatever photographs show, in colour."""
    return path.suffix in _FOREIGN


class StartError(Exception):
    """A network cannot start there; ``str()`` says why and what to do."""


def start_from(
    network: FaceNetwork, config: ModelConfig, paths: Sequence[Path], faces: FaceSet
) -> None:
    """Fill ``network``, which ``config`` describes.

    Each path is a checkpoint of ours, an exported model with its manifest (of both
    the head, too, where it has rows for it), a file of torchvision's weights, dlib's
    ``.dat`` or ``faceres.json``. A network of two bodies starts from one path that
    holds both, or from one for each. ``faces`` are those that will be trained on.
    Raises ``StartError``.
    """
    if len(paths) == 1:
        _fill(network, paths[0], faces)
        return
    parts = parts_of(config)
    if len(paths) != len(parts):
        names = " and ".join(part.architecture for part in parts)
        raise StartError(
            f"{len(paths)} files to start from were given: a network "
            f"{config.architecture!r} takes one"
            + (f", or one for each of {names}." if len(parts) > 1 else ".")
        )
    networks = [build_network(part) for part in parts]
    for part, path in zip(networks, paths, strict=True):
        _fill(part, path, faces)
    join(network, networks)


def _fill(network: FaceNetwork, path: Path, faces: FaceSet) -> None:
    try:
        if path.suffix in _FOREIGN:
            sample = faces.crops[:: max(1, len(faces) // _CALIBRATION_FACES)]
            pixels = torch.from_numpy(normalise(sample, Normalisation()))
            _FOREIGN[path.suffix](network.body, path, pixels)
        elif path.suffix == ".onnx":
            _take(network, _read_exported(path, len(network.head.weight)))
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            if "average" in weights:
                _take(network, weights["average"])
            else:
                load_pretrained(network, weights)
    except OSError as error:
        raise StartError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # Damaged files raise whatever zip and pickle like.
        # Torch's own words advise to load it in the way that runs what code it holds.
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" {error}"
        raise StartError(
            f"{path} cannot be used: it is damaged, or holds no weights for this "
            f"network.{reason}"
        ) from error


def _take(network: FaceNetwork, state: Mapping[str, torch.Tensor]) -> None:
    """All of another's state, but for a head with other rows. Raises ``ValueError``
    where the other has less: what it lacks would stay random without a word."""
    own = network.state_dict()
    missing = [
        name
        for name in own
        # How many batches normalisation has seen is in no exported file.
        if name not in state and not name.endswith("num_batches_tracked")
    ]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    fitting = {
        name: value
        for name, value in state.items()
        if not name.startswith("head.") or own[name].shape == value.shape
    }
    network.load_state_dict(own | fitting)


def _read_exported(path: Path, outputs: int) -> dict[str, torch.Tensor]:
    """The tensors of an exported model; its head gets ``outputs`` rows, and those
    beyond the file's four are zero. Raises ``ModelFileError``, ``ManifestError``."""
    data = read_model(path)
    verify_model(data, load_manifest(path))
    state = {
        name: torch.from_numpy(values)
        for name, values in read_weights(onnx.load_model_from_string(data)).items()
    }
    for name in (HEAD_WEIGHT_NAME, HEAD_BIAS_NAME):
        rows = torch.zeros(outputs, *state[name].shape[1:])
        rows[: len(EMOTIONS)] = state[name]
        state[name] = rows
    return state
