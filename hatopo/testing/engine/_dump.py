"""What DUMP hands out: decides how a value is written down, and which payloads are taken back.

The payload is our own, not that of Redis: JSON between a mark and a checksum. It is good for every embedded node.
Reading one makes values and nothing else, whoever has written it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fakeredis.model import StreamGroup
from fakeredis.model._stream import PelEntry, StreamConsumerInfo, StreamEntryKey

from hatopo.testing._reply import ErrorReply
from hatopo.testing.engine._data import Hash, HyperLog, MemberSet, XStream, ZSet, kind_of

__all__ = ["dumped", "restored"]

_MARK = b"\x7fhatopo\x01"
_SUM = 8


def dumped(content: Any) -> bytes:
    """The payload of a value."""
    kind = "hyperlog" if type(content) is HyperLog else kind_of(content)
    body = _MARK + json.dumps([kind, _state(content)], separators=(",", ":")).encode()
    return body + hashlib.sha256(body).digest()[:_SUM]


def restored(payload: bytes) -> Any:
    """The value of a payload; raises ErrorReply if it is none of ours."""
    body, checksum = payload[:-_SUM], payload[-_SUM:]
    if not body.startswith(_MARK) or hashlib.sha256(body).digest()[:_SUM] != checksum:
        raise ErrorReply("ERR DUMP payload version or checksum are wrong")
    try:
        kind, state = json.loads(body[len(_MARK) :])
        return _content(kind, state)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise ErrorReply("ERR Bad data format") from None


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: str) -> bytes:
    return value.encode("latin-1")


def _state(content: Any) -> Any:
    """A value in terms of JSON."""
    kind = type(content)
    if kind is bytes:
        return _text(content)
    if kind is ZSet:
        return [[_text(member), score.hex()] for member, score in content.items()]
    if kind is Hash:
        return [[_text(field), _text(value)] for field, value in content._values.items()]
    if kind is XStream:
        return _stream_state(content)
    return [_text(one) for one in (content._values if isinstance(content, MemberSet) else content)]


def _content(kind: str, state: Any) -> Any:
    """The value of a state."""
    match kind:
        case "string":
            return _bytes(state)
        case "list":
            return [_bytes(one) for one in state]
        case "set":
            return MemberSet({_bytes(one): None for one in state})
        case "hyperlog":
            return HyperLog({_bytes(one): None for one in state})
        case "zset":
            scores = ZSet()
            for member, score in state:
                scores.add(_bytes(member), float.fromhex(score))
            return scores
        case "hash":
            fields = Hash()
            fields._values = {_bytes(field): _bytes(value) for field, value in state}
            return fields
        case "stream":
            return _stream(state)
    raise ValueError(kind)


def _stream_state(stream: XStream) -> dict[str, Any]:
    return {
        "entries": [[key, [_text(one) for one in stream._values_dict[key]]] for key in stream._ids],
        "last": stream._last_id,
        "deleted": stream._max_deleted_id,
        "added": stream._entries_added,
        "groups": [
            {
                "name": _text(group.name),
                "last": group.last_delivered_key,
                "read": group.entries_read,
                "consumers": [[_text(c.name), c.last_attempt, c.last_success] for c in group.consumers.values()],
                "pending": [
                    [key, _text(p.consumer_name), p.time_read, p.times_delivered] for key, p in group.pel.items()
                ],
            }
            for group in stream._groups.values()
        ],
    }


def _key(parts: list[int]) -> StreamEntryKey:
    milliseconds, number = parts
    return StreamEntryKey(int(milliseconds), int(number))


def _stream(state: dict[str, Any]) -> XStream:
    stream = XStream()
    for key, fields in state["entries"]:
        stream.add([_bytes(one) for one in fields], _key(key))
    stream._last_id, stream._max_deleted_id = _key(state["last"]), _key(state["deleted"])
    stream._entries_added = int(state["added"])
    for one in state["groups"]:
        group = StreamGroup(stream, _bytes(one["name"]), _key(one["last"]), one["read"])
        for name, attempt, success in one["consumers"]:
            consumer = StreamConsumerInfo(_bytes(name))
            consumer.last_attempt, consumer.last_success = int(attempt), int(success)
            group.consumers[consumer.name] = consumer
        for key, name, read, times in one["pending"]:
            group.pel[_key(key)] = PelEntry(_bytes(name), int(read), int(times))
        stream._groups[group.name] = group
    return stream
