"""The command `hatopo`: decides which words there are, and leaves the work to the modules of this room.

    hatopo demo     failovers of a Sentinel set, under load, with a time line and a ledger

Each word imports what it needs when it is said: the extras of one are not needed by another.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]

WORDS = {"demo": "hatopo.cli._demo"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    parser = argparse.ArgumentParser(prog="hatopo", description="The high-availability layer for redis-py.")
    parser.add_argument("word", choices=WORDS, help="demo: failovers under load, with a time line and a ledger")
    chosen = parser.parse_args(words[:1])
    try:
        module = importlib.import_module(WORDS[chosen.word])
    except ImportError as error:
        missing = _missing(error)
        if missing is None:
            raise
        parser.exit(2, f"'hatopo {chosen.word}' needs {missing}: pip install 'hatopo[{chosen.word}]'\n")
    try:
        return int(module.main(words[1:]))
    except KeyboardInterrupt:
        return 130


def _missing(error: BaseException | None) -> str | None:
    """The module that is not installed; None: something else is wrong."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError):
            return (error.name or "").partition(".")[0] or None
        error = error.__cause__
    return None
