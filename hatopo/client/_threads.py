"""Background threads: all are daemons, are started here, and may be impossible.

A process that cannot run threads (no more of them, an interpreter that shuts down, uWSGI without `enable-threads`) is
noticed and said once; whoever wanted one does without.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping

log = logging.getLogger("hatopo.topology")
_said: set[str] = set()


def start_thread(name: str, target: Callable[[], object]) -> bool:
    """Starts a daemon thread; False where none can be started."""
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError as error:  # no more threads, or the interpreter is going down
        _say(f"no background thread can be started ({error}): topology changes are noticed when calls fail")
        return False
    return True


def threads_run() -> bool:
    """Whether a background thread would run while nobody calls us."""
    options = getattr(sys.modules.get("uwsgi"), "opt", None)
    if not isinstance(options, Mapping):
        return True
    names = {name.decode() if isinstance(name, bytes) else str(name) for name in options}
    if names & {"enable-threads", "threads", "gevent", "asyncio"}:
        return True
    _say("uWSGI runs without enable-threads: topology changes are noticed when calls fail")
    return False


def _say(what: str) -> None:
    if what not in _said:
        _said.add(what)
        log.warning("%s", what)
