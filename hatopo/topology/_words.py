"""What sentinels publish, read into values: the channels to listen to, and what a message on one of them means.

Decides which events matter to a client, and whose they are. It must not know who listens, nor which service is
wanted: the caller compares `Word.service` exactly. Addresses are as announced; IPv6 stands without brackets, and
where the sentinels announce host names, the host is one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hatopo.address import Address
from hatopo.topology._parse import address_of, is_number, text


class Sign(enum.Enum):
    """What an event means to a client."""

    SWITCHED = "switched"
    """The service has a new master: `Word.address`."""
    CANDIDATE = "candidate"
    """A failover is to make this replica the master, or just did: `Word.address`."""
    ABORTED = "aborted"
    """A failover was given up: the old master stays."""
    BEGUN = "begun"
    """The sentinels agree that the master is down, or one of them starts a failover."""
    CHANGED = "changed"
    """Something about the service is different: a hint to ask again."""


SIGNS = {
    "+switch-master": Sign.SWITCHED,
    "+selected-slave": Sign.CANDIDATE,
    "+promoted-slave": Sign.CANDIDATE,
    "-failover-abort-not-elected": Sign.ABORTED,
    "-failover-abort-no-good-slave": Sign.ABORTED,
    "-failover-abort-slave-timeout": Sign.ABORTED,
    "+try-failover": Sign.BEGUN,
    "+odown": Sign.BEGUN,
    "-odown": Sign.CHANGED,
    "+sdown": Sign.CHANGED,
    "-sdown": Sign.CHANGED,
    "+slave": Sign.CHANGED,
    "+sentinel": Sign.CHANGED,
    "+sentinel-address-switch": Sign.CHANGED,
    "+reset-master": Sign.CHANGED,
    "+monitor": Sign.CHANGED,
    "-monitor": Sign.CHANGED,
    "+reboot": Sign.CHANGED,
    "+convert-to-slave": Sign.CHANGED,
    "+role-change": Sign.CHANGED,
    "-role-change": Sign.CHANGED,
    "+config-update-from": Sign.CHANGED,
}
CHANNELS: tuple[str, ...] = tuple(SIGNS)
"""The channels to subscribe to, by name."""
TYPES = {"master", "slave", "sentinel"}
OF_MASTERS = {Sign.BEGUN, Sign.ABORTED}
"""Signs that only the master itself can give."""


@dataclass(frozen=True, slots=True)
class Word:
    """One event that a sentinel published.

    Attributes:
        sign: what it means.
        service: the name of the service that it is about.
        address: the new master (SWITCHED), the replica that is to be it (CANDIDATE), both always there; the master
            that is given up (BEGUN), unless its name could not be resolved; else None.
    """

    sign: Sign
    service: str
    address: Address | None = None


def parse_word(channel: object, payload: object) -> Word | None:
    """What a message means, as str or bytes; None for a channel that is none of `CHANNELS`, and for nonsense."""
    sign = SIGNS.get(text(channel))
    # A host that a sentinel could not resolve is an empty word: the others must keep their places.
    words = text(payload).split(" ")
    if sign is None:
        return None
    if sign is Sign.SWITCHED:
        return _switch(words)
    return _event(sign, words)


def _switch(words: list[str]) -> Word | None:
    """Reads "service old-host old-port new-host new-port"."""
    if len(words) != 5 or not words[0] or not is_number(words[2]):
        return None
    address = address_of(words[3], words[4])
    return None if address is None else Word(Sign.SWITCHED, words[0], address)


def _event(sign: Sign, words: list[str]) -> Word | None:
    """Reads "type name host port", which for what is not a master goes on "@ service host port"; more may follow."""
    if len(words) < 4 or words[0] not in TYPES or not is_number(words[3]):
        return None
    of_master = words[0] == "master"
    if not of_master and (len(words) < 8 or words[4] != "@" or not is_number(words[7])):
        return None
    service = words[1] if of_master else words[5]
    if not service or (sign in OF_MASTERS and not of_master):
        return None
    address = address_of(words[2], words[3])
    if sign is Sign.CANDIDATE:
        return None if of_master or address is None else Word(sign, service, address)
    return Word(sign, service, address if sign is Sign.BEGUN else None)
