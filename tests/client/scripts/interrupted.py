"""Calls with numbers among their arguments, under signals: the interpreter must survive that.

Code in C that turns a number into text may be where the interpreter runs a signal handler.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import hatopo
from tests.client.support import value_of
from tests.client.test_signals import KEYS, SoftLimit, bombard

NUMBERS = [*range(300), *(number / 7 for number in range(300))]


def main(port: int) -> None:
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None  # an interrupt in a `__del__`
    client = hatopo.standalone("127.0.0.1", port)
    for key in KEYS:
        client.set(key, value_of(key))

    def ask(key: str) -> Any:
        client.pfadd("numbers", *NUMBERS)
        pipeline = client.pipeline()
        pipeline.pfadd("numbers", *NUMBERS)
        pipeline.execute()
        return client.get(key)

    assert bombard(ask, SoftLimit) > 100
    client.close()
    print("ok")


if __name__ == "__main__":
    main(int(sys.argv[1]))
