"""Pages for the person whose data they are: plain HTML, one file, no script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: left; }
figure { display: inline-block; width: 9rem; margin: .4rem; vertical-align: top;
  overflow-wrap: anywhere; font-size: .75rem; }
figure img { width: 6rem; image-rendering: pixelated; display: block; }
img.wide { max-width: 100%; }
"""


def page(title: str, sections: Iterable[str]) -> bytes:
    body = "\n".join(sections)
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    return text.encode(errors="replace")


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def picture(name: str, alt: str) -> str:
    """A figure that lies beside the page."""
    return (
        f'<p><img class="wide" src="{html.escape(name)}" alt="{html.escape(alt)}"></p>'
    )


def faces(
    title: str, shown: Mapping[str, tuple[npt.NDArray[np.uint8] | None, str]]
) -> str:
    """A section of small pictures: file -> (crop or None, caption)."""
    parts = [f"<h2>{html.escape(title)}</h2>"]
    for file, (crop, caption) in shown.items():
        image = ""
        if crop is not None:
            image = f'<img src="{_inline(crop)}" alt="">'
        parts.append(
            f"<figure>{image}<figcaption>{html.escape(file)}<br>"
            f"{html.escape(caption)}</figcaption></figure>"
        )
    return "\n".join(parts)


def _inline(crop: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(crop[:, :, 0] if crop.shape[2] == 1 else crop).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
