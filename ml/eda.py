"""What a data set looks like -> numbers, figures and one page.

Mean faces and sample grids show the user's pictures: they stay in the folder that
the user names.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from ml import figures, gallery
from ml.data import (
    SPLITS,
    FaceSet,
    Layout,
    Progress,
    Split,
    counts_by_emotion,
    files_of_split,
    load_split,
)
from ml.duplicates import near_duplicates, thumbnails
from ml.images import read_file, read_header
from ml.labels import EMOTIONS
from ml.manifest import InputSpec, write_atomically
from ml.quality import contrasts

_SAMPLES: Final = 24


def explore(
    layout: Layout, out: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Write ``index.html``, ``summary.json`` and figures to ``out``; return the
    summary. Raises ``DataError``."""
    sets: dict[Split, FaceSet] = {
        split: load_split(
            layout, split, InputSpec(), source="folder", progress=progress
        )
        for split in SPLITS
    }
    sizes, modes, formats = _headers(layout, progress)
    counts: dict[str, dict[str, int]] = {
        split: {
            emotion.value: count
            for emotion, count in counts_by_emotion(faces.folder_labels).items()
        }
        for split, faces in sets.items()
    }
    summary: dict[str, Any] = {
        "counts": counts,
        "imbalance": {
            split: round(max(row.values()) / max(min(row.values()), 1), 3)
            for split, row in counts.items()
        },
        "sizes": _named(sizes),
        "modes": _named(modes),
        "formats": _named(formats),
        "unreadable": [list(row) for s in sets.values() for row in s.unreadable],
        "near_duplicate_pairs": _duplicate_pairs(sets, progress),
        "brightness": _brightness(sets),
    }
    drawn = _draw(sets, counts)
    for name, data in drawn.items():
        write_atomically(out / f"{name}.png", data)
    write_atomically(out / "summary.json", json.dumps(summary, indent=2).encode())
    write_atomically(out / "index.html", _page(summary, list(drawn)))
    return summary


def _headers(
    layout: Layout, progress: Progress | None
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    listed = [path for split in SPLITS for path, _ in files_of_split(layout, split)]
    advance = progress("Reading headers", len(listed)) if progress else None
    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    for path in listed:
        try:
            header = read_header(read_file(path))
        except OSError:
            header = None
        if header is not None:
            sizes[f"{header.width_px} x {header.height_px}"] += 1
            modes[header.mode] += 1
            formats[header.format] += 1
        if advance:
            advance()
    return sizes, modes, formats


def _named(counter: Counter[str], most: int = 20) -> dict[str, int]:
    """The most common by name; what remains together, so that they sum to all."""
    named = dict(counter.most_common(most))
    rest = counter.total() - sum(named.values())
    return named | ({"other": rest} if rest else {})


def _duplicate_pairs(
    sets: dict[Split, FaceSet], progress: Progress | None
) -> dict[str, int]:
    """Pairs inside and across splits, and those under two labels."""
    splits = np.concatenate(
        [np.full(len(faces), i) for i, faces in enumerate(sets.values())]
    )
    labels = np.concatenate([faces.folder_labels for faces in sets.values()])
    thumbs = np.concatenate([thumbnails(faces.crops) for faces in sets.values()])
    advance = progress("Comparing pictures", len(thumbs)) if progress else None
    pairs = across = contradicting = 0
    for i, others, _ in near_duplicates(thumbs, advance=advance):
        after = others[others > i]
        pairs += len(after)
        across += int((splits[after] != splits[i]).sum())
        contradicting += int((labels[after] != labels[i]).sum())
    return {
        "all": pairs,
        "across_splits": across,
        "contradicting_labels": contradicting,
    }


def _brightness(sets: dict[Split, FaceSet]) -> dict[str, dict[str, float]]:
    return {
        split: {
            "mean": round(float(faces.crops.mean()), 2),
            "contrast": round(float(contrasts(faces.crops).mean()), 2),
        }
        for split, faces in sets.items()
    }


def _draw(
    sets: dict[Split, FaceSet], counts: dict[str, dict[str, int]]
) -> dict[str, bytes]:
    train = sets["train"]
    by_emotion = {
        emotion: train.crops[train.folder_labels == emotion.position]
        for emotion in EMOTIONS
    }
    generator = np.random.default_rng(0)
    means = np.stack(
        [
            crops.mean(axis=0, dtype=np.float64).round().astype(np.uint8)
            if len(crops)
            else np.zeros(train.crops.shape[1:], np.uint8)
            for crops in by_emotion.values()
        ]
    )
    drawn = {
        "counts": figures.counts(counts),
        "brightness": figures.histograms(
            {e.value: c.mean(axis=(1, 2, 3)) for e, c in by_emotion.items()},
            "Brightness of train",
            "mean grey level",
        ),
        "contrast": figures.histograms(
            {e.value: contrasts(c) for e, c in by_emotion.items()},
            "Contrast of train",
            "standard deviation of grey levels",
        ),
        "mean_faces": figures.face_grid(
            means, "Mean faces of train", [emotion.value for emotion in EMOTIONS], 4
        ),
    }
    for emotion, crops in by_emotion.items():
        chosen = generator.permutation(len(crops))[:_SAMPLES]
        drawn[f"samples_{emotion}"] = figures.face_grid(crops[chosen], emotion.value)
    return {name: figures.to_png(figure) for name, figure in drawn.items()}


def _page(summary: dict[str, Any], names: list[str]) -> bytes:
    duplicates = summary["near_duplicate_pairs"]
    return gallery.page(
        "The data set",
        [
            gallery.table(
                ["split", *EMOTIONS, "largest over smallest"],
                [
                    [split, *row.values(), summary["imbalance"][split]]
                    for split, row in summary["counts"].items()
                ],
            ),
            gallery.paragraph(
                f"{duplicates['all']} pairs are nearly the same picture, "
                f"{duplicates['across_splits']} of them across splits, "
                f"{duplicates['contradicting_labels']} under two labels. "
                f"{len(summary['unreadable'])} files cannot be read."
            ),
            gallery.table(["size", "pictures"], summary["sizes"].items()),
            gallery.table(["mode", "pictures"], summary["modes"].items()),
            *(gallery.picture(f"{name}.png", name.replace("_", " ")) for name in names),
        ],
    )
