"""Training: one loop for CPU, one GPU, or several under ``torchrun``.

What a run did follows from its config, its seed and its data alone: every batch
draws from a generator seeded with (seed, epoch, batch), so a run that was stopped
and resumed ends where the unbroken one does.
"""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ml.augmentation import AugmentationConfig, augment
from ml.consensus import NO_LABEL
from ml.data import FaceSet
from ml.evaluate import confusion_matrix, macro_f1
from ml.labels import EMOTIONS
from ml.manifest import Normalisation, write_atomically
from ml.models import FaceNetwork, ModelConfig, build_network
from ml.preprocessing import normalise
from ml.starting import StartError, start_from

CHECKPOINT_FILE: Final = "checkpoint.pt"
HISTORY_FILE: Final = "history.json"
CONFIG_FILE: Final = "config.json"

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class TrainingError(Exception):
    """Training cannot start or go on; ``str()`` says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything but the data that a run depends on.

    ``learning_rate`` is for a batch of 128 and grows with it. ``emotion_weight``
    adds the loss over the four emotions alone to that over all that people saw.
    ``faces_per_epoch`` cuts an epoch short where a whole one costs too much.
    ``mixup_share`` and ``cutmix_share`` are shares of the batches. ``device``
    ``auto`` takes a GPU where there is one; ``precision`` ``auto`` is bf16 where
    the hardware multiplies it. ``teachers`` are the hashes of the models whose word
    is ``teacher_share`` of the targets (``ml.distillation``).
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig | None = field(default_factory=AugmentationConfig)
    seed: int = 0
    epochs: int = 60
    faces_per_epoch: int | None = None
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: float = 2.0
    ema_decay: float = 0.9995
    label_smoothing: float = 0.0
    emotion_weight: float = 1.0
    mixup_share: float = 0.5
    mixup_alpha: float = 0.3
    cutmix_share: float = 0.2
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    loader_threads: int = 0
    teachers: tuple[str, ...] = ()
    teacher_share: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError("epochs must be at least 1 and batch_size at least 2")
        if not 0 < self.learning_rate < math.inf or self.seed < 0:
            raise ValueError(
                "learning_rate must be a positive number, seed not negative"
            )
        if not 0 < self.ema_decay < 1:
            raise ValueError("ema_decay must lie in (0, 1)")
        if not 0 <= self.mixup_share + self.cutmix_share <= 1:
            raise ValueError("mixup_share and cutmix_share must not exceed 1 together")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"unknown precision {self.precision!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of the curves. Losses are means a face; the rest lies in [0, 1] and
    is measured with the averaged weights."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    learning_rate: float
    duration_seconds: float


@dataclass(slots=True)
class TrainingResult:
    """The averaged network (on the CPU, ready to export) and its curves.

    Where it is the mean of several runs, config and curves are those of the first,
    and ``averaged_with`` has the configs of the others.
    """

    network: FaceNetwork
    config: TrainConfig
    history: list[EpochRecord]
    averaged_with: tuple[TrainConfig, ...] = ()

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.config.epochs


def config_from_dict(raw: dict[str, Any]) -> TrainConfig:
    """The inverse of ``TrainConfig.to_dict``, also after JSON turned tuples."""

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }

    raw = dict(raw)
    augmentation = raw.pop("augmentation")
    return TrainConfig(
        model=ModelConfig(**tuples(raw.pop("model"))),
        augmentation=(
            None if augmentation is None else AugmentationConfig(**tuples(augmentation))
        ),
        **tuples(raw),
    )


class _World:
    """This process among those that ``torchrun`` started; alone, rank 0 of 1."""

    def __init__(self, device: str) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise TrainingError("No GPU was found. Use --device cpu, or auto.")
        try:
            self.device = torch.device(
                f"cuda:{local}" if device == "cuda" and self.size > 1 else device
            )
            if self.device.type not in ("cpu", "cuda", "mps"):
                raise RuntimeError("nothing else is trained on")
            # A name alone says little: mps or cuda:7 may not be there.
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise TrainingError(
                f"There is no device {device!r}. Use auto, cpu, cuda or cuda:1."
            ) from error
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

    @property
    def leads(self) -> bool:
        return self.rank == 0

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
    files that the network starts from (``ml.starting``).
    Raises ``TrainingError``.
    """
    _check_data(config, train_faces, validation_faces)
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


def load_result(run_dir: Path) -> TrainingResult:
    """What a run has reached so far; raises ``TrainingError``."""
    saved = _read_checkpoint(run_dir)
    if saved is None:
        raise TrainingError(f"{run_dir} holds no {CHECKPOINT_FILE}. Train first.")
    with _refusing_damage(run_dir):
        config = config_from_dict(json.loads(saved["config"]))
        network = build_network(config.model)
        network.load_state_dict(saved["average"])
        history = [EpochRecord(**row) for row in json.loads(saved["history"])]
    return TrainingResult(network.eval(), config, history)


def average_runs(run_dirs: Sequence[Path]) -> TrainingResult:
    """One network whose weights are the mean of what several runs have reached.

    Wortsman et al., "Model soups", 2022: it pays where the runs started from the same
    trained weights. Raises ``TrainingError``, also where their networks differ.
    """
    first, *others = [load_result(run_dir) for run_dir in run_dirs]
    for run_dir, other in zip(run_dirs[1:], others, strict=True):
        if other.config.model != first.config.model:
            raise TrainingError(
                f"{run_dir} holds another network than {run_dirs[0]}: only runs of "
                "one network can be averaged."
            )
    states = [one.network.state_dict() for one in (first, *others)]
    first.network.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
    )
    first.averaged_with = tuple(other.config for other in others)
    return first


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
    saved = _read_checkpoint(run_dir)
    if saved is not None:
        with _refusing_damage(run_dir):
            before = config_from_dict(json.loads(saved["config"]))
        if _same_run(before) != _same_run(config):
            raise TrainingError(
                f"{run_dir} holds a run with another config. Give another folder, or "
                "remove it."
            )
        with _refusing_damage(run_dir):
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
    peak = config.learning_rate * config.batch_size / 128
    for epoch in range(len(history), config.epochs):
        started = time.monotonic()
        # Dropout draws from torch's own generator: each epoch starts it afresh.
        torch.manual_seed(_seed_of(config.seed, epoch, world.rank))
        network.train()
        total_loss = 0.0
        batches = _batches(config, train_faces, epoch, world, local_batch, per_epoch)
        for number, (faces, targets, weights) in enumerate(batches):
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
            _move_average(average, network, config.ema_decay, steps)
            total_loss += float(loss.detach())
            on_batch(number + 1, per_epoch)
        if not math.isfinite(total_loss):
            raise TrainingError(
                "The loss is no number any more. Lower the learning rate."
            )
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
        if world.leads:
            _write_checkpoint(
                run_dir, config, network, average, optimiser, history, steps
            )
            on_epoch(record)
        if _agreed(stop(), world):
            break
    return TrainingResult(average.cpu().eval(), config, history)


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
    consensus where those are votes, else the folders."""
    emotions = len(EMOTIONS)
    targets = torch.from_numpy(faces.targets[:, :emotions])
    mass = targets.sum(dim=1).clamp_min(1e-8)
    inner = F.log_softmax(torch.from_numpy(logits), dim=1)
    loss = float((-(targets * inner).sum(dim=1) / mass).mean())
    voted = faces.targets.shape[1] > emotions
    labels = faces.consensus if voted else faces.folder_labels
    known = labels != NO_LABEL
    if not known.any():
        return loss, 0.0, 0.0
    confusion = confusion_matrix(labels[known], logits[known].argmax(axis=1))
    accuracy = float(np.trace(confusion) / confusion.sum())
    return loss, accuracy, macro_f1(confusion)


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _batches(
    config: TrainConfig,
    faces: FaceSet,
    epoch: int,
    world: _World,
    local_batch: int,
    per_epoch: int,
) -> Iterator[Batch]:
    """The batches of one epoch for this process, prepared ahead by threads."""
    order = np.random.default_rng((config.seed, epoch)).permutation(len(faces))
    mine = order[world.rank :: world.size]

    def prepare(number: int) -> Batch:
        rows = mine[number * local_batch : (number + 1) * local_batch]
        seed = _seed_of(config.seed, epoch, number, world.rank)
        generator = torch.Generator().manual_seed(seed)
        return _prepare(config, faces, rows, generator)

    if config.loader_threads == 0:
        yield from map(prepare, range(per_epoch))
        return
    with ThreadPoolExecutor(config.loader_threads) as pool:
        ahead = 2 * config.loader_threads
        waiting = [pool.submit(prepare, k) for k in range(min(ahead, per_epoch))]
        for number in range(per_epoch):
            batch = waiting.pop(0).result()
            if number + ahead < per_epoch:
                waiting.append(pool.submit(prepare, number + ahead))
            yield batch


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _prepare(
    config: TrainConfig, faces: FaceSet, rows: IntArray, generator: torch.Generator
) -> Batch:
    crops = faces.crops[rows]
    if config.augmentation is not None:
        crops = augment(crops, config.augmentation, generator)
    pixels = torch.from_numpy(normalise(crops, Normalisation()))
    targets = torch.from_numpy(faces.targets[rows])
    weights = torch.from_numpy(faces.weights[rows])
    dice = float(torch.rand(1, generator=generator))
    if dice < config.mixup_share:
        return _mixup(pixels, targets, weights, config.mixup_alpha, generator)
    if dice < config.mixup_share + config.cutmix_share:
        return _cutmix(pixels, targets, weights, generator)
    return pixels, targets, weights


def _mixup(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    alpha: float,
    generator: torch.Generator,
) -> Batch:
    """Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018."""
    other = torch.randperm(len(pixels), generator=generator)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, len(pixels))
    share = torch.from_numpy(drawn.astype(np.float32))
    share = torch.maximum(share, 1 - share)
    wide = share.view(-1, 1, 1, 1)
    pixels = pixels * wide + pixels[other] * (1 - wide)
    # Two faces on one another have less contrast than one: bring it back.
    pixels = pixels / pixels.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-3)
    tall = share.view(-1, 1)
    targets = targets * tall + targets[other] * (1 - tall)
    return pixels, targets, weights * share + weights[other] * (1 - share)


def _cutmix(
    pixels: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    generator: torch.Generator,
) -> Batch:
    """Yun et al., "CutMix", 2019: one rectangle a batch, from another face."""
    other = torch.randperm(len(pixels), generator=generator)
    side = pixels.shape[-1]
    height, width = (
        int(value)
        for value in torch.randint(side // 6, side // 2, (2,), generator=generator)
    )
    top = int(torch.randint(side - height + 1, (1,), generator=generator))
    left = int(torch.randint(side - width + 1, (1,), generator=generator))
    pixels = pixels.clone()
    rows, columns = slice(top, top + height), slice(left, left + width)
    pixels[:, :, rows, columns] = pixels[other][:, :, rows, columns]
    share = 1 - height * width / side**2
    targets = targets * share + targets[other] * (1 - share)
    return pixels, targets, weights * share + weights[other] * (1 - share)


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


@torch.no_grad()
def _move_average(
    average: nn.Module, network: nn.Module, decay: float, steps: int
) -> None:
    """Exponential average of weights and statistics; young runs forget faster."""
    decay = min(decay, (1 + steps) / (10 + steps))
    ours = list(average.state_dict().values())
    theirs = list(network.state_dict().values())
    floats = [i for i, value in enumerate(ours) if value.is_floating_point()]
    torch._foreach_lerp_(
        [ours[i] for i in floats], [theirs[i] for i in floats], 1 - decay
    )
    for value, other in zip(ours, theirs, strict=True):
        if not value.is_floating_point():
            value.copy_(other)


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


def _check_data(config: TrainConfig, train_faces: FaceSet, valid: FaceSet) -> None:
    if len(train_faces) < 2 or len(valid) == 0:
        raise TrainingError("Training needs at least two faces, and one to validate.")
    if train_faces.targets.shape[1] != config.model.outputs:
        raise TrainingError(
            f"The data has {train_faces.targets.shape[1]} targets a face, the config "
            f"{config.model.outputs} outputs."
        )
    if train_faces.crops.shape[3] != config.model.channels:
        raise TrainingError("The data and the config differ in channels.")


def _same_run(config: TrainConfig) -> TrainConfig:
    """The config without what may change between two halves of a run."""
    return replace(config, device="auto", precision="auto", loader_threads=0)


def _read_checkpoint(run_dir: Path) -> dict[str, Any] | None:
    path = run_dir / CHECKPOINT_FILE
    if not path.exists():
        return None
    with _refusing_damage(run_dir):
        return dict(torch.load(path, map_location="cpu", weights_only=True))


@contextmanager
def _refusing_damage(run_dir: Path) -> Iterator[None]:
    """Whatever a file raises that is no checkpoint of ours becomes one sentence.

    Torch's own words are not passed on: they advise to load the file in the way that
    runs what code it holds.
    """
    try:
        yield
    except Exception as error:  # Zip, pickle and JSON raise what they like.
        raise TrainingError(
            f"{run_dir / CHECKPOINT_FILE} cannot be read: it is damaged, or no "
            "checkpoint of this release. Give another folder, or remove the file to "
            f"start anew. ({type(error).__name__})"
        ) from error


def _write_checkpoint(
    run_dir: Path,
    config: TrainConfig,
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[EpochRecord],
    steps: int,
) -> None:
    rows = json.dumps([asdict(record) for record in history])
    buffer = io.BytesIO()
    torch.save(
        {
            "config": json.dumps(config.to_dict()),
            "history": rows,
            "steps": steps,
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        buffer,
    )
    write_atomically(run_dir / CHECKPOINT_FILE, buffer.getvalue())
    write_atomically(run_dir / HISTORY_FILE, rows.encode())
    write_atomically(
        run_dir / CONFIG_FILE, json.dumps(config.to_dict(), indent=2).encode()
    )
