"""The one door to torchvision.

Built for CPUs, torchvision's C++ library does not load beside a torch from another
index, and the import fails on two operators that nothing here uses. Declaring them
first lets it pass; where the library loads by itself, that changes nothing.
"""

from __future__ import annotations

from typing import Final

import torch

_DECLARED: Final = torch.library.Library(  # type: ignore[no-untyped-call]
    "torchvision", "DEF"
)
for _operator in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _DECLARED.define(_operator)  # type: ignore[no-untyped-call]

from torchvision import models  # noqa: E402  # Only after the declarations.

__all__ = ["models"]
