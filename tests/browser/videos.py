"""Videos that a browser takes for its camera: motion JPEG, made from photographs."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image

from tests.pictures import astronaut, encode

FRAMES = 40


def write_video(path: Path, frames: list[Image.Image]) -> Path:
    """One JPEG after the other, which is all that .mjpeg is; browsers loop it."""
    path.write_bytes(b"".join(encode(frame, quality=88) for frame in frames))
    return path


def still_face(
    width_px: int, height_px: int, left_px: int, side_px: int
) -> Image.Image:
    """The astronaut, ``side_px`` large, at the left edge ``left_px`` of a grey wall."""
    frame = Image.new("RGB", (width_px, height_px), (92, 100, 96))
    face = astronaut().resize((side_px, side_px), Image.Resampling.BICUBIC)
    frame.paste(face, (left_px, height_px - side_px))
    return frame


def write_still_face(folder: Path) -> Path:
    """1280 x 720, the face left of the middle, for where its place matters."""
    return write_video(folder / "still.mjpeg", [still_face(1280, 720, 80, 700)])


def write_moving_face(folder: Path) -> Path:
    """640 x 480, the face swings from side to side."""
    frames = [
        still_face(640, 480, round(100 + 70 * math.sin(2 * math.pi * i / FRAMES)), 440)
        for i in range(FRAMES)
    ]
    return write_video(folder / "moving.mjpeg", frames)
