"""The screen of the demo: the time line as it happens, and the ledger. Decides how things look, and nothing else."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

import hatopo
from hatopo import events
from hatopo.cli._ledger import Ledger

STYLES = {"FAULT": "bold red", "app": "yellow", "hatopo": "bold green", "demo": "cyan"}


class Screen:
    """Prints what happens: seconds since the start, who says so, and what it is, with names for addresses."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.names: dict[str, str] = {}
        self.quiet = False
        self._started = time.monotonic()
        self._told = set[str]()
        self._lock = threading.Lock()

    def title(self, title: str, what: str) -> None:
        """Begin an experiment."""
        self._told.clear()
        self.quiet = False
        self.console.print(Text(f"\n{title}: {what}\n", style="bold"))

    def say(self, who: str, what: str, once: str = "") -> None:
        """Print a line; `once`: unless there was one of this kind in this experiment."""
        for address, name in self.names.items():
            what = what.replace(address, name)
        with self._lock:
            if not self.quiet and once not in self._told:
                line = Text(f"{time.monotonic() - self._started:7.2f} s  ")
                line.append(f"{who:11}", style=STYLES.get(who, "magenta"))
                self.console.print(line.append(what))
            self._told |= {once} - {""}

    def hush(self) -> None:
        """Say nothing: what comes now is not what the demo shows."""
        self.quiet = True

    def failed(self, kind: str, error: str, seconds: float) -> None:
        """The application has met an error."""
        self.say("app", f"a {kind} fails with {error} after {seconds:.2f} s", once=kind + error)

    def ledger(self, title: str, ledger: Ledger) -> None:
        """Print the ledger of an experiment, and whether all is as it must be."""
        table = Table(title=f"ledger of {title}", title_justify="left", box=None, padding=(0, 2), title_style="bold")
        table.add_column("")
        table.add_column("reads", justify="right")
        table.add_column("writes", justify="right")
        for row, (reads, writes) in ledger.rows.items():
            table.add_row(row, reads, writes)
        self.console.print()
        self.console.print(table)
        if ledger.complaints:
            self.console.print(Text(f"  FAILED: {'; '.join(ledger.complaints)}", style="bold red"))
        else:
            self.console.print(Text("  passed", style="bold green"))

    def stats(self, client: hatopo.Redis) -> None:
        """Print what the client itself has counted."""
        table = Table(title="client.stats()", title_justify="left", box=None, padding=(0, 2), show_header=False)
        for name, value in dataclasses.asdict(client.stats()).items():
            shown = f"{value:.2f} s" if isinstance(value, float) else f"{value}"
            if isinstance(value, Mapping):
                shown = ", ".join(f"{count} {what}" for what, count in sorted(value.items())) or "none"
            table.add_row(name.replace("_", " "), shown)
        self.console.print()
        self.console.print(table)


def in_words(event: events.Event) -> str:
    """What hatopo reports."""
    match event:
        case events.FailoverStarted(sign=sign):
            return f"a failover has started: {sign}"
        case events.MasterChanged(old=old, new=new, seconds=seconds, provisional=provisional):
            sure = "; provisional: no sentinel has confirmed it yet" if provisional else ""
            return f"commands go to {new} instead of {old or 'nobody'}, {seconds:.2f} s after the first sign{sure}"
        case events.TopologyChanged(topology=view, cause=cause):
            master, *replicas = (str(node.address) for node in view.nodes)
            sure = "provisional" if view.provisional else "agreed" if view.agreed else "no majority yet"
            known = f"master {master}, replicas {', '.join(replicas) or 'none'}"
            return f"the topology is: {known} ({cause.value}, {sure})"
        case events.DiscoveryDegraded():
            return "no sentinel can be asked: the last known master is kept"
        case events.SentinelLost(address=address):
            return f"the sentinel {address} is lost"
        case events.SentinelFound(address=address):
            return f"the sentinel {address} is found, or heard again"
        case events.ReplicaRefused(address=address, reason=reason):
            return f"no reads for the replica {address}: {reason}"
        case events.ReplicaAccepted(address=address):
            return f"reads for the replica {address} again"
        case events.NodeDown(reason=reason):
            return reason
        case events.NodeUp(address=address):
            return f"{address} can be reached again"
    return str(event)
