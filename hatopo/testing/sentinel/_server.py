"""A sentinel: a server that watches masters, and with the other sentinels replaces those that fail.

Holds the state of one sentinel, lets its ticks happen, and publishes its events; what a tick does stands in the
other modules of this package. A sentinel can also be made to misbehave: to keep an event to itself, to name a wrong
master, to announce a wrong address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatopo.testing._control import Event
from hatopo.testing.commands import SENTINEL_TABLE
from hatopo.testing.sentinel import _commands, _failover, _hello, _monitor, _rules, _saved, _settings
from hatopo.testing.sentinel._election import ask_others
from hatopo.testing.sentinel._instances import (
    NONE,
    UPDATE_CONFIG,
    Instance,
    Master,
    Peer,
    Periods,
    Replica,
    is_address,
    shown,
)
from hatopo.testing.sentinel._line import Line
from hatopo.testing.sentinel._saved import Saved
from hatopo.testing.sentinel._schedule import next_due
from hatopo.testing.server import _client_commands, _greeting, _help, _pubsub
from hatopo.testing.server._handlers import Handlers
from hatopo.testing.server._server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing.sentinel._instances import Address
    from hatopo.testing.world._clock import Timer
    from hatopo.testing.world._world import World

SLOWEST_TICK, FASTEST_TICK = 10, 19
"""Ticks in a second; each one draws when the next will be, so that sentinels do not keep in step."""


class Crash(Exception):  # noqa: N818 - it ends a sentinel, as it was asked to
    """The sentinel has killed itself (SENTINEL SIMULATE-FAILURE)."""


class SentinelServer(Server):
    """A Redis Sentinel.

    Args:
        world: whom it can reach, and what time it is.
        port: where it listens.
        requirepass: the password of the default user; also what it logs in with to other sentinels.
        options: as of `Server`.
    """

    mode = "sentinel"
    table = SENTINEL_TABLE
    handlers = Handlers(
        {
            **_greeting.commands,
            **_pubsub.commands,
            **_client_commands.commands,
            **_commands.commands,
            **_settings.commands,
            **_help.commands,
        }
    )

    def __init__(self, world: World, port: int = 0, *, requirepass: str | None = None, **options: Any) -> None:
        super().__init__(world, port=port, **options)
        self.requirepass = requirepass
        if requirepass is not None:
            self.accounts.set_password(requirepass)
        self.myid = world.new_id()
        self.events: list[Event] = []
        """What it has published, in order."""
        self._hearers: list[Callable[[Event], object]] = []
        self._swallowed: dict[str, int | None] = {}
        self._lie: tuple[Address, int | None] | None = None
        self._saved = Saved()
        self._held: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._paused_at = 0
        self._timer: Timer | None = None
        self._timer_at = 0
        self._forget()

    def _forget(self) -> None:
        """Know nothing, as a process that has just begun."""
        self.masters: dict[str, Master] = {}
        self.periods = Periods()
        self.epoch = 0
        self.tilt, self.tilt_since = False, 0
        self.failures: set[str] = set()
        """The ways to crash that were asked for."""
        self.announce_ip: str | None = None
        self.announce_port = 0
        self.sentinel_user: str | None = None
        self.sentinel_pass: str | None = None
        self.resolve_hostnames = self.announce_hostnames = False
        self._last_tick = self.moment

    @property
    def moment(self) -> int:
        """Milliseconds since 1970, in the world's time."""
        return round(self.world.now * 1000)

    # Configuration

    def monitor(self, name: str, host: str, port: int, quorum: int, **settings: int | str) -> None:
        """Watch a master, as a line `sentinel monitor` of its configuration file says.

        Args:
            name: the service's name.
            host: where the master is now; a numeric address.
            port: likewise.
            quorum: how many sentinels must agree that it is down.
            settings: as of SENTINEL SET, with underscores: down_after_milliseconds=1000, auth_pass="secret" ...
        """
        master = self.add_master(name, (host, port), quorum)
        for option, value in settings.items():
            _settings.change(master, option.replace("_", "-"), [str(value)])
        self.save()
        if self.running:
            self.event("+monitor", master, f"quorum {quorum}")
            self.wake()

    def set_requirepass(self, password: str) -> None:
        """Demand a password of clients that do not name a user, and use it with the other sentinels."""
        self.requirepass = password or None
        self.accounts.set_password(password)

    def set_sentinel_login(self, user: str | None, password: str | None) -> None:
        """Log in with this to other sentinels."""
        self.sentinel_user, self.sentinel_pass = user, password
        self.save()

    def save(self) -> None:
        """Write down what is to outlive the process."""
        self._saved = _saved.save(self)

    def login_for(self, one: Instance) -> tuple[str, ...]:
        """What AUTH is sent to an instance; nothing: none is."""
        user, password = one.service.auth_user, one.service.auth_pass
        if isinstance(one, Peer):
            user, password = self.sentinel_user, self.sentinel_pass
            if password is None:
                user, password = None, self.requirepass
        if password is None:
            return ()
        return (password,) if user is None else (user, password)

    # Whom it knows

    def add_master(self, name: str, address: Address, quorum: int) -> Master:
        """Watch one more master."""
        now = self.moment
        timeout = self.periods.default_failover_timeout
        master = Master(name, address, Line(self, now), self.periods.default_down_after, now, failover_timeout=timeout)
        master.quorum = quorum
        self.masters[name] = master
        return master

    def remove_master(self, master: Master) -> None:
        """Watch a master no longer."""
        del self.masters[master.name]
        for one in (master, *master.replicas.values(), *master.sentinels.values()):
            one.line.release()

    def add_replica(self, master: Master, address: Address) -> Replica | None:
        """Note a replica; None: it is known, or its address is none."""
        name = shown(address)
        if name in master.replicas or not is_address(address):
            return None
        now = self.moment
        replica = Replica(name, address, Line(self, now), master.down_after, now, master=master)
        master.replicas[name] = replica
        return replica

    def add_peer(self, master: Master, run_id: str, address: Address) -> Peer | None:
        """Note another sentinel; None: its address is none."""
        if run_id in master.sentinels or not is_address(address):
            return None
        now = self.moment
        line = next(
            (match.line for other in self.masters.values() if (match := other.sentinels.get(run_id)) is not None), None
        )
        if line is None:
            line = Line(self, now)
        else:
            line.users += 1
        peer = Peer(run_id, address, line, master.down_after, now, run_id, master=master)
        master.sentinels[run_id] = peer
        return peer

    def reset_master(self, master: Master, *, keep_sentinels: bool = False) -> None:
        """Forget what was found out about a master."""
        for one in (*master.replicas.values(), *(() if keep_sentinels else master.sentinels.values())):
            one.line.release()
        master.replicas.clear()
        if not keep_sentinels:
            master.sentinels.clear()
        line, now = master.line, self.moment
        line.close()
        master.s_down = master.o_down = master.script_kill_sent = master.rebooted = False
        master.failing_over = master.forced = False
        master.leader, master.promoted = None, None
        master.failover_state, master.failover_changed, master.failover_start = NONE, 0, 0
        master.run_id, master.master_host = "", None
        line.act_ping = line.last_avail = line.last_pong = now
        line.last_ping = 0
        master.role_reported, master.role_reported_since = "master", now
        self.wake()

    def change_address(self, master: Master, address: Address) -> None:
        """Follow a switch: the master is elsewhere now, and where it was is a replica."""
        replicas = [one.address for one in master.replicas.values() if one.address != address]
        if master.address != address:
            replicas.append(master.address)
        self.reset_master(master, keep_sentinels=True)
        master.address = address
        master.o_down_since = master.s_down_since = 0
        for one in replicas:
            replica = self.add_replica(master, one)
            if replica is not None:
                self.event("+slave", replica)
        self.save()

    def raise_epoch(self, master: Master, epoch: int) -> None:
        """Take over a newer epoch."""
        if epoch > self.epoch:
            self.epoch = epoch
            self.save()
            self.publish_event("+new-epoch", str(epoch), master)

    def heard_hello(self, text: str) -> None:
        """A message on the hello channel of a data node."""
        if self.myid not in text:
            self.receive_hello(text)

    def receive_hello(self, text: str) -> None:
        """A hello."""
        _hello.receive(self, text)
        self.wake()

    # Events

    def on_event(self, callback: Callable[[Event], object]) -> None:
        """Have every event from now on told to a function, when it is published."""
        self._hearers.append(callback)

    def event(self, channel: str, about: Instance, more: str = "") -> None:
        """Publish an event about an instance."""
        title = _rules.title(about)
        self.publish_event(channel, f"{title} {more}" if more else title, about.service)

    def publish_event(self, channel: str, payload: str, master: Master | None = None) -> None:
        """Publish an event."""
        if channel in self._swallowed:
            left = self._swallowed[channel]
            if left is None:
                return
            if left <= 1:
                del self._swallowed[channel]
            else:
                self._swallowed[channel] = left - 1
            return
        event = Event(self.world.now, self.address, channel, payload)
        self.events.append(event)
        self.publish(channel.encode(), payload.encode("utf-8", "surrogateescape"))
        for hearer in self._hearers:
            hearer(event)

    # How it can misbehave

    def swallow(self, event: str, times: int | None = None) -> None:
        """Do not publish an event, so often or for ever; the sentinel itself does what it does."""
        self._swallowed[event] = times

    def lie(self, master: Address, epoch: int | None = None) -> None:
        """Name a wrong master to clients and sentinels alike; under a higher epoch, other sentinels believe it."""
        self._lie = (master, epoch)

    def honest(self) -> None:
        """The end of `lie` and `swallow`."""
        self._lie = None
        self._swallowed.clear()

    def announce(self, host: str, port: int) -> None:
        """Be known to other sentinels by this address."""
        self.announce_ip, self.announce_port = host, port
        self.save()

    @property
    def announced(self) -> Address:
        """By which address other sentinels are to know it."""
        return (self.announce_ip or self.address[0], self.announce_port or self.address[1])

    def told(self, master: Master) -> tuple[Address, int]:
        """The address and configuration epoch of a master as this sentinel tells them."""
        if self._lie is None:
            return master.current_address, master.config_epoch
        address, epoch = self._lie
        return address, master.config_epoch if epoch is None else epoch

    def shown_address(self, one: Instance) -> Address:
        """The address of an instance as this sentinel shows it."""
        return self._lie[0] if self._lie is not None and isinstance(one, Master) else one.address

    def crash_if(self, failure: str) -> None:
        """End here, if that was asked for."""
        if failure in self.failures:
            self.kill()
            raise Crash(failure)

    # Its life

    def on_start(self) -> None:
        self._read_again()
        for master in self.masters.values():
            self.event("+monitor", master, f"quorum {master.quorum}")
        self.wake()

    def on_stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._held.clear()
        for master in self.masters.values():
            for one in (master, *master.replicas.values(), *master.sentinels.values()):
                one.line.close()
        self._read_again()

    def _read_again(self) -> None:
        """Know what was written down, and nothing else."""
        self._forget()
        _saved.load(self, self._saved)

    def pause(self) -> None:
        """Stand still, as after SIGSTOP."""
        if self.running and not self.paused:
            self._paused_at = self.moment
        super().pause()

    def on_resume(self) -> None:
        held, self._held = self._held, []
        for callback, args in held:
            self.enter(callback, *args)
        self.world.after(0, self.enter, self._resumed)

    def _resumed(self) -> None:
        """The first tick after a pause: too much time has passed, or not."""
        if self.moment - self._paused_at > self.periods.tilt_trigger:
            self.tilt, self.tilt_since = True, self.moment
            self.publish_event("+tilt", "#tilt mode entered")
        self.wake()

    def enter(self, callback: Callable[..., object], *args: Any) -> None:
        """Let something from outside happen: now, or after the pause."""
        if not self.running:
            return
        if self.paused:
            self._held.append((callback, args))
            return
        self.world.clock.catch_up()
        if self.running:
            try:
                callback(*args)
            except Crash:
                return

    # Ticks

    def wake(self) -> None:
        """Look at everything at the next tick."""
        self._tick_at(self.moment)

    def _tick_at(self, due: int) -> None:
        """See to it that a tick happens at `due` or soon after."""
        if self._timer is not None:
            if self._timer_at <= max(due, self.moment + 1000 // SLOWEST_TICK):
                return
            self._timer.cancel()
        self._timer_at = self._next_tick(due)
        self._timer = self.world.after(self._timer_at / 1000 - self.world.now, self._tick)

    def _next_tick(self, due: int) -> int:
        """The first tick at `due` or after it."""
        draw, at = self.world.rng.randint, self._last_tick
        if due - at > 1000:
            return due + draw(0, 1000 // FASTEST_TICK)  # long ago: the tick before may have been at any moment
        while True:
            at += 1000 // draw(SLOWEST_TICK, FASTEST_TICK)
            if at >= due:
                return max(at, self.moment)

    def _tick(self) -> None:
        self._timer = None
        if self.running and not self.paused:
            self._last_tick = self.moment
            try:
                self.enter(self._look)
            except Exception:
                self._tick_at(self.moment + 1000)  # a mistake is logged, and not the end of all looks
                raise

    def _look(self) -> None:
        """Do all that is due."""
        for master in [*self.masters.values()]:
            self._see_to(master)
            for one in (*master.replicas.values(), *master.sentinels.values()):
                self._see_to(one)
        ended = [one for one in self.masters.values() if one.failover_state == UPDATE_CONFIG]
        if ended:
            _failover.switch(self, ended[-1])
        due = next_due(self)
        if due is not None:
            self._tick_at(due)

    def _see_to(self, one: Instance) -> None:
        _monitor.reconnect(self, one)
        _monitor.send_periodic(self, one)
        if self.tilt:
            if self.moment - self.tilt_since < self.periods.tilt_period:
                return
            self.tilt = False
            self.publish_event("-tilt", "#tilt mode exited")
        _monitor.check_subjectively_down(self, one)
        if isinstance(one, Master):
            self._lead(one)

    def _lead(self, master: Master) -> None:
        _monitor.check_objectively_down(self, master)
        if _rules.may_start_failover(master, self.moment):
            _failover.start(self, master)
            ask_others(self, master, forced=True)
        _failover.advance(self, master)
        ask_others(self, master)
