"""Writes the champion's figures into ``README.md``: ``python -m tests.readme``.

They come from the manifest that travels with the weights; a test compares the two, so
that a new champion cannot leave old figures behind.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ml.labels import EMOTIONS
from tests.stack import ROOT

README: Final = ROOT / "README.md"
MANIFEST: Final = ROOT / "ml" / "weights" / "champion.json"
_BEGIN: Final = "<!-- python -m tests.readme: begin -->"
_END: Final = "<!-- python -m tests.readme: end -->"


def with_figures(readme: str, manifest: dict[str, Any]) -> str:
    """The text with its marked part written anew."""
    head, _, rest = readme.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{figures(manifest)}\n{_END}{tail}"


def figures(manifest: dict[str, Any]) -> str:
    """The manifest's figures on the test faces, as a table and two sentences."""
    by_people = manifest["metrics"]["test"]["consensus"]
    by_folder = manifest["metrics"]["test"]["folder"]
    lines = [
        f"Model `{manifest['version']}`, on test faces that nothing was fitted to:",
        "",
        "| against | faces | accuracy | macro F1 |",
        "|---|---|---|---|",
        _row("what most of ten people said", by_people),
        _row("the data set's own folder, one noisy opinion", by_folder),
        "",
        "| emotion | precision | recall | faces |",
        "|---|---|---|---|",
        *(_emotion_row(name, by_people["per_class"][name]) for name in EMOTIONS),
        "",
        f"It is sure of {_percent(by_people['coverage'])} of these faces, and right on "
        f"{_percent(by_people['covered_accuracy'])} of those; of the rest it says",
        "“not sure”. Its probabilities are off by "
        f"{100 * by_people['ece']:.1f} percentage points on average (ECE).",
    ]
    return "\n".join(lines)


def _row(name: str, report: dict[str, Any]) -> str:
    cells = [name, str(report["n"])]
    for figure in ("accuracy", "macro_f1"):
        low, high = report["intervals"][figure]
        value = report[figure]
        cells.append(f"{_percent(value)} ({_percent(low)} to {_percent(high)})")
    return f"| {' | '.join(cells)} |"


def _emotion_row(name: str, report: dict[str, Any]) -> str:
    share = f"{_percent(report['precision'])} | {_percent(report['recall'])}"
    return f"| {name} | {share} | {report['support']} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> None:
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    text = README.read_text(encoding="utf-8")
    README.write_text(with_figures(text, manifest), encoding="utf-8")


if __name__ == "__main__":
    main()
