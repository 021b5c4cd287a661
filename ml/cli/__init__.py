"""``python -m ml``: what can be done from a terminal.

What may be piped goes to standard output: all JSON, the lines of ``predict`` and the
table of ``compare``. What else people read goes to the error stream.
A mistake in what was given ends with a sentence and exit code 2, never with a
traceback. Torch is imported by the commands that train, and by no other.
"""

from __future__ import annotations

import io
import sys

import typer

from ml.cli.base import fail
from ml.cli.cleaning import clean, eda
from ml.cli.judging import evaluate, framing, predict, robustness
from ml.cli.training import compare, export, features, quantise, train
from ml.data import DataError
from ml.manifest import ManifestError, ModelFileError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Clean data, train, compare and judge models, read faces.",
)
for _command in (
    predict,
    evaluate,
    eda,
    clean,
    train,
    export,
    quantise,
    compare,
    robustness,
    framing,
    features,
):
    app.command()(_command)


def main() -> None:
    """The entry point: errors that a person can mend become sentences."""
    # Names of files may hold bytes that are no text: they are shown, not stumbled over.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (DataError, ManifestError, ModelFileError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        # A folder that is a file or may not be written to, a full disk.
        reason = error.strerror or str(error)
        fail(
            f"{error.filename} cannot be used: {reason}." if error.filename else reason
        )
