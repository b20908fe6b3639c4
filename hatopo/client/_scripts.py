"""Scripts and locks: redis-py's own, with what is known about repeating them.

A script is repeated after a lost reply only if its author declared that it may be. A lock whose SET NX got no
reply asks the key who holds it.
"""

from __future__ import annotations

from typing import Any

import redis.lock
from redis.commands.core import Script as _RedisScript

from hatopo.errors import AmbiguousResultError


class Script(_RedisScript):
    """A registered script: call it with `keys`, `args` and optionally a `client` or pipeline."""


class Lock(redis.lock.Lock):
    """redis-py's lock. A token whose SET NX got no reply is read back: the key tells who holds it."""

    _unsure = False

    def register_scripts(self) -> None:
        """Registers the scripts with this client; redis-py would keep the first client alive for ever."""
        register: Any = self.redis.register_script
        self.lua_release = register(self.LUA_RELEASE_SCRIPT)
        self.lua_extend = register(self.LUA_EXTEND_SCRIPT)
        self.lua_reacquire = register(self.LUA_REACQUIRE_SCRIPT)

    def do_acquire(self, token: Any) -> bool:
        """Sets the key if nobody has; after a lost reply, looks whether it was us."""
        try:
            if super().do_acquire(token):
                return True
        except AmbiguousResultError:
            self._unsure = True
        return self._unsure and self._holder() == token

    def _holder(self) -> Any:
        stored: Any = self.redis.get(self.name)
        return self.redis.get_encoder().encode(stored) if isinstance(stored, str) else stored
