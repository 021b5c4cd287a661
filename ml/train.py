"""Training: one loop for CPU, one GPU, or several under ``torchrun``.

What a run did follows from its config, its seed and its data alone: every batch
draws from a generator seeded with (seed, epoch, batch), so a run that was stopped
and resumed ends where the unbroken one does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ml.averaging import measure_statistics, move_average
from ml.batches import batches, seed_of
from ml.checkpoint import (
    TrainingResult,
    read_checkpoint,
    refusing_damage,
    write_checkpoint,
)
from ml.consensus import NO_LABEL
from ml.data import FaceSet, Progress
from ml.evaluate import confusion_matrix, macro_f1
from ml.labels import EMOTIONS
from ml.manifest import Normalisation
from ml.models import FaceNetwork, build_network
from ml.preprocessing import normalise
from ml.starting import StartError, start_from
from ml.train_config import EpochRecord, TrainConfig, TrainingError, config_from_dict

_STATISTICS_BATCHES: Final = 60
"""Some thousand faces."""

Float32Array = npt.NDArray[np.float32]


def find_device(name: str) -> torch.device:
    """What ``--device`` names. Raises ``TrainingError`` where it is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError("No GPU was found. Use --device cpu, or auto.")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("nothing else is trained on")
        # A name alone says little: mps or cuda:7 may not be there.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(
            f"There is no device {name!r}. Use auto, cpu, cuda or cuda:1."
        ) from error
    return device


def leads() -> bool:
    """Whether this process writes and speaks for those that ``torchrun`` started."""
    return _rank() == 0


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


class _World:
    """This process among those that ``torchrun`` started; alone, rank 0 of 1."""

    def __init__(self, device: str) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = _rank()
        shared = device in ("auto", "cuda") and torch.cuda.is_available()
        if self.size > 1 and shared:
            # One for each process.
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        self.device = find_device(device)
        self._started = False
        if self.size > 1 and not dist.is_initialized():
            # Its functions keep as a default argument the group that stands when they
            # are imported, and DistributedDataParallel imports them: a group that is
            # kept outlives its destruction, and its threads the interpreter, which
            # ends a process that had done everything with SIGABRT.
            import_module("torch.distributed.nn.functional")
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend)
            self._started = True

    def close(self) -> None:
        if self._started:
            dist.destroy_process_group()


def train(
    config: TrainConfig,
    train_faces: FaceSet,
    validation_faces: FaceSet,
    run_dir: Path,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    pretrained: Sequence[Path] = (),
) -> TrainingResult:
    """Train, or go on where ``run_dir`` holds a checkpoint of the same config.

    ``on_batch(done, total)`` follows an epoch. ``stop`` is asked after each epoch;
    where it says so, the run ends early and can be resumed. ``pretrained`` are the
    files that the network starts from (``ml.starting``); a run goes on only with the
    data and the start that it began with.
    Raises ``TrainingError``.
    """
    _check_data(config, train_faces, validation_faces)
    if run_dir.exists() and not run_dir.is_dir():
        raise TrainingError(f"{run_dir} is a file. Give a folder for the run.")
    world = _World(config.device)
    try:
        return _train(
            config,
            train_faces,
            validation_faces,
            run_dir,
            world,
            on_epoch or (lambda _: None),
            on_batch or (lambda _done, _total: None),
            stop or (lambda: False),
            pretrained,
        )
    finally:
        world.close()


def _train(
    config: TrainConfig,
    train_faces: FaceSet,
    validation_faces: FaceSet,
    run_dir: Path,
    world: _World,
    on_epoch: Callable[[EpochRecord], None],
    on_batch: Callable[[int, int], None],
    stop: Callable[[], bool],
    pretrained: Sequence[Path],
) -> TrainingResult:
    torch.manual_seed(config.seed)
    device = world.device
    network = build_network(config.model)
    if pretrained:
        try:
            start_from(network, config.model, pretrained, train_faces)
        except StartError as error:
            raise TrainingError(str(error)) from error
    origin = _origin(config, train_faces, validation_faces, pretrained)
    average = build_network(config.model)
    average.load_state_dict(network.state_dict())
    layout = torch.channels_last
    for copy in (network, average):
        copy.to(device)
        copy.to(memory_format=layout)  # type: ignore[call-overload]
    average.eval().requires_grad_(False)
    optimiser = torch.optim.SGD(
        _parameter_groups(network, config.weight_decay),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
    history: list[EpochRecord] = []
    steps = 0
    saved = read_checkpoint(run_dir)
    if saved is not None:
        with refusing_damage(run_dir):
            before = config_from_dict(json.loads(saved["config"]))
        if _same_run(before) != _same_run(config):
            raise TrainingError(
                f"{run_dir} holds a run with another config. Give another folder, or "
                "remove it."
            )
        for what, digest in json.loads(saved.get("origin", "{}")).items():
            if origin[what] != digest:
                raise TrainingError(
                    f"{run_dir} holds a run that began with another {what}. Give "
                    "another folder, or remove it."
                )
        with refusing_damage(run_dir):
            network.load_state_dict(saved["network"])
            average.load_state_dict(saved["average"])
            optimiser.load_state_dict(saved["optimiser"])
            history = [EpochRecord(**row) for row in json.loads(saved["history"])]
            steps = int(saved["steps"])
    parallel: nn.Module = (
        DistributedDataParallel(network) if world.size > 1 else network
    )
    bf16 = _wants_bf16(config, device)
    local_batch = max(2, config.batch_size // world.size)
    faces_per_epoch = min(len(train_faces), config.faces_per_epoch or len(train_faces))
    per_epoch = max(1, faces_per_epoch // (local_batch * world.size))
    # No batch is larger than all faces, whatever was asked for.
    peak = config.learning_rate * min(config.batch_size, len(train_faces)) / 128
    for epoch in range(len(history), config.epochs):
        started = time.monotonic()
        # Dropout draws from torch's own generator: each epoch starts it afresh.
        torch.manual_seed(seed_of(config.seed, epoch, world.rank))
        network.train()
        total_loss = 0.0
        prepared = batches(
            config,
            train_faces,
            epoch,
            rank=world.rank,
            world_size=world.size,
            batch_size=local_batch,
            count=per_epoch,
        )
        for number, (faces, targets, weights) in enumerate(prepared):
            rate = peak * _schedule(
                (epoch + number / per_epoch), config.warmup_epochs, config.epochs
            )
            for group in optimiser.param_groups:
                group["lr"] = rate
            faces = faces.to(device, memory_format=layout, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = parallel(faces)
            loss = soft_loss(
                logits.float(),
                targets.to(device, non_blocking=True),
                weights.to(device, non_blocking=True),
                config.emotion_weight,
                config.label_smoothing,
            )
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            steps += 1
            move_average(average, network, config.ema_decay, steps)
            total_loss += float(loss.detach())
            on_batch(number + 1, per_epoch)
        if not math.isfinite(total_loss):
            raise TrainingError(
                "The loss is no number any more. Lower the learning rate."
            )
        if epoch + 1 == config.epochs:
            renew_statistics(average, config, train_faces)
        logits_v = predict_logits(average, validation_faces, device, bf16)
        loss_v, accuracy, f1 = _judge(logits_v, validation_faces)
        record = EpochRecord(
            epoch=epoch + 1,
            train_loss=total_loss / per_epoch,
            validation_loss=loss_v,
            validation_accuracy=accuracy,
            validation_macro_f1=f1,
            learning_rate=rate,
            duration_seconds=time.monotonic() - started,
        )
        history.append(record)
        if leads():
            write_checkpoint(
                run_dir, config, origin, network, average, optimiser, history, steps
            )
            on_epoch(record)
        if _agreed(stop(), world):
            break
    return TrainingResult(average.cpu().eval(), config, history)


def renew_statistics(
    network: FaceNetwork,
    config: TrainConfig,
    faces: FaceSet,
    progress: Progress | None = None,
) -> None:
    """Measure normalisation anew, as it is after any averaging of weights.

    Over varied faces, none mixed with another, the same for all processes: some
    thousand of ``faces``, drawn and varied as ``config`` says. They are to be those
    that the weights were trained on (``check_training_set``).
    """
    device = next(network.parameters()).device
    count = max(1, min(_STATISTICS_BATCHES, len(faces) // config.batch_size))
    advance = progress("Measuring normalisation", count) if progress else None
    prepared = batches(
        replace(config, mixup_share=0.0, cutmix_share=0.0),
        faces,
        config.epochs,
        rank=0,
        world_size=1,
        batch_size=config.batch_size,
        count=count,
    )

    def pixels() -> Iterator[torch.Tensor]:
        for varied, _, _ in prepared:
            yield varied.to(device, memory_format=torch.channels_last)
            if advance:
                advance()

    measure_statistics(network, pixels())


def soft_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    emotion_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy with shares of votes; a scalar.

    Where targets have more columns than the four emotions, the loss among the four
    alone, weighted by the share of votes that fell on them, is added: it is what
    serving asks.
    """
    emotions = len(EMOTIONS)
    if label_smoothing:
        uniform = 1 / targets.shape[1]
        targets = targets * (1 - label_smoothing) + label_smoothing * uniform
    losses = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)
    if targets.shape[1] > emotions and emotion_weight:
        inner = F.log_softmax(logits[:, :emotions], dim=1)
        losses = losses - emotion_weight * (targets[:, :emotions] * inner).sum(dim=1)
    return (losses * weights).sum() / weights.sum().clamp_min(1e-8)


@torch.inference_mode()
def predict_logits(
    network: FaceNetwork,
    faces: FaceSet,
    device: torch.device,
    bf16: bool = False,
    batch_size: int = 256,
) -> Float32Array:
    """The four emotions' logits, float32 (N, 4)."""
    parts = []
    network.eval()
    for start in range(0, len(faces), batch_size):
        batch = normalise(faces.crops[start : start + batch_size], Normalisation())
        tensor = torch.from_numpy(batch).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = network(tensor)
        parts.append(logits[:, : len(EMOTIONS)].float().cpu().numpy())
    return np.concatenate(parts)


def _judge(logits: Float32Array, faces: FaceSet) -> tuple[float, float, float]:
    """(loss among the four, accuracy, macro F1) against what the faces' targets say:
    consensus where those are votes, else the folders. Faces without a vote on the four
    are not judged; 0 where none is left."""
    emotions = len(EMOTIONS)
    targets = torch.from_numpy(faces.targets[:, :emotions])
    mass = targets.sum(dim=1)
    inner = F.log_softmax(torch.from_numpy(logits), dim=1)
    losses = -(targets * inner).sum(dim=1)[mass > 0] / mass[mass > 0]
    loss = float(losses.mean()) if len(losses) else 0.0
    voted = faces.targets.shape[1] > emotions
    labels = faces.consensus if voted else faces.folder_labels
    known = labels != NO_LABEL
    if not known.any():
        return loss, 0.0, 0.0
    confusion = confusion_matrix(labels[known], logits[known].argmax(axis=1))
    accuracy = float(np.trace(confusion) / confusion.sum())
    return loss, accuracy, macro_f1(confusion)


def _schedule(epoch: float, warmup: float, epochs: int) -> float:
    """Linear warm-up, then a cosine down to a thousandth; in (0, 1]."""
    if epoch < warmup:
        return max(epoch / warmup, 0.01)
    done = (epoch - warmup) / max(epochs - warmup, 1e-8)
    return max(0.5 * (1 + math.cos(math.pi * min(done, 1.0))), 1e-3)


def _parameter_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Biases and normalisation are not pulled towards zero."""
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _wants_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _agreed(stop: bool, world: _World) -> bool:
    """Whether any of the processes was told to stop."""
    if world.size == 1:
        return stop
    flag = torch.tensor([int(stop)], device=world.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def check_faces(train_faces: FaceSet, valid: FaceSet) -> None:
    """Raises ``TrainingError`` where there is nothing to train on or to validate by."""
    if len(train_faces) < 2 or len(valid) == 0:
        raise TrainingError(
            f"Training needs at least two faces, and one to validate: there are "
            f"{len(train_faces)} and {len(valid)}. Faces that nearly are one of "
            "validation or test are left out."
        )


def _check_data(config: TrainConfig, train_faces: FaceSet, valid: FaceSet) -> None:
    check_faces(train_faces, valid)
    if train_faces.targets.shape[1] != config.model.outputs:
        raise TrainingError(
            f"The data has {train_faces.targets.shape[1]} targets a face, the config "
            f"{config.model.outputs} outputs."
        )
    if train_faces.crops.shape[3] != config.model.channels:
        raise TrainingError("The data and the config differ in channels.")


def _origin(
    config: TrainConfig,
    train_faces: FaceSet,
    valid: FaceSet,
    pretrained: Sequence[Path],
) -> dict[str, str]:
    """What a run follows from beside its config, by the word for it."""
    start = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pretrained]
    return {
        "training set": _training_set(config, train_faces),
        "validation set": valid.digest(),
        "start (--weights)": " ".join(start),
    }


def _training_set(config: TrainConfig, faces: FaceSet) -> str:
    return faces.digest(exact=not config.teachers)


def check_training_set(run_dir: Path, faces: FaceSet) -> None:
    """Raises ``TrainingError`` where the run in ``run_dir`` trained on other faces.

    A teacher's word on them is not compared. An early release's checkpoint does not
    tell what its run trained on, and any faces pass.
    """
    saved = read_checkpoint(run_dir)
    if saved is None:
        return
    with refusing_damage(run_dir):
        config = config_from_dict(json.loads(saved["config"]))
        known = json.loads(saved.get("origin", "{}")).get("training set")
    if known not in (None, _training_set(config, faces)):
        raise TrainingError(
            f"{run_dir} trained on another training set. A mean of runs is measured on "
            "what they trained on: give their --data, and their --manifest or "
            "--no-others."
        )


def _same_run(config: TrainConfig) -> TrainConfig:
    """The config without what may change between two halves of a run."""
    return replace(config, device="auto", precision="auto", loader_threads=0)
