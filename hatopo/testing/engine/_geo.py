"""Places: decides how longitude and latitude become a score, how far two places are apart, and which are near.

All of it is ours: fakeredis keeps texts for scores, which no other command of sorted sets can read, and it knows
neither boxes nor hashes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply
from hatopo.testing.engine._context import SYNTAX, Context, floating, integer, native, text
from hatopo.testing.engine._data import ZSet
from hatopo.testing.engine._zsets import store

RADIUS = 6372797.560856
"""Of the earth, in metres, as Redis has it."""
_LATITUDE, _LONGITUDE = (-85.05112878, 85.05112878), (-180.0, 180.0)
_UNITS = {b"m": 1.0, b"km": 1000.0, b"ft": 0.3048, b"mi": 1609.34}
_LETTERS = "0123456789bcdefghjkmnpqrstuvwxyz"
Place = tuple[float, float]
"""Longitude and latitude."""


def _spread(value: int) -> int:
    """The bits of a number, with a zero between any two."""
    return int("0".join(f"{value:b}"), 2)


def encode(place: Place, latitudes: Place = _LATITUDE) -> int:
    """The 52 bits of a place."""
    longitude = (place[0] - _LONGITUDE[0]) / (_LONGITUDE[1] - _LONGITUDE[0])
    latitude = (place[1] - latitudes[0]) / (latitudes[1] - latitudes[0])
    mask = 0xFFFFFFFF
    return (_spread(int(latitude * 2**26) & mask) | _spread(int(longitude * 2**26) & mask) << 1) & (2**52 - 1)


def decode(score: float) -> Place:
    """The place of a score: the middle of its cell."""
    bits = f"{int(score) & (2**52 - 1):052b}"
    east, north = int(bits[::2], 2), int(bits[1::2], 2)

    def middle(cell: int, limits: Place) -> float:
        size = limits[1] - limits[0]
        low, high = limits[0] + cell / 2**26 * size, limits[0] + (cell + 1) / 2**26 * size
        return min(max((low + high) / 2, limits[0]), limits[1])

    return middle(east, _LONGITUDE), middle(north, _LATITUDE)


def _radians(degrees: float) -> float:
    return degrees * (math.pi / 180)


def distance(a: Place, b: Place) -> float:
    """Metres between two places, along the surface."""
    east, north = _radians(a[0]), _radians(a[1])
    other_east, other_north = _radians(b[0]), _radians(b[1])
    v = math.sin((other_east - east) / 2)
    if v == 0:
        return RADIUS * abs(other_north - north)
    u = math.sin((other_north - north) / 2)
    return 2 * RADIUS * math.asin(math.sqrt(u * u + math.cos(north) * math.cos(other_north) * v * v))


def _unit(value: bytes) -> float:
    unit = _UNITS.get(value.lower())
    if unit is None:
        raise ErrorReply("ERR unsupported unit provided. please use M, KM, FT, MI")
    return unit


def _place(longitude: bytes, latitude: bytes) -> Place:
    east, north = floating(longitude), floating(latitude)
    if not (_LONGITUDE[0] <= east <= _LONGITUDE[1] and _LATITUDE[0] <= north <= _LATITUDE[1]):
        raise ErrorReply(f"ERR invalid longitude,latitude pair {east:f},{north:f}")
    return east, north


@native("geoadd")
def geoadd(context: Context, args: list[bytes]) -> Reply:
    start = 2
    while start < len(args) and args[start].lower() in (b"nx", b"xx", b"ch"):
        start += 1
    words = {one.lower() for one in args[2:start]}
    if (len(args) - start) % 3 or {b"nx", b"xx"} <= words:
        raise ErrorReply(SYNTAX)
    request = [b"zadd", *args[1:start]]
    for index in range(start, len(args), 3):
        request += [b"%d" % encode(_place(args[index], args[index + 1])), args[index + 2]]
    return context.adapted("zadd", request)


def _metres(value: float) -> bytes:
    return b"%.4f" % value


def _scores(context: Context, key: bytes, members: list[bytes]) -> list[float | None]:
    """The scores of members, None where there is none."""
    zset = context.get(key, ZSet)
    return [None if zset is None else zset.get(member) for member in members]


@native("geodist")
def geodist(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 5:
        raise ErrorReply(SYNTAX)
    unit = _unit(args[4]) if len(args) == 5 else 1.0
    one, other = _scores(context, args[1], args[2:4])
    return None if one is None or other is None else _metres(distance(decode(one), decode(other)) / unit)


class _Degrees(float):
    """A coordinate, which is sent with more digits than other doubles."""

    __slots__ = ()

    def __format__(self, how: str) -> str:
        return f"{Decimal(float(self)):.17f}".rstrip("0").rstrip(".")


def _shown(context: Context, place: Place) -> Reply:
    return [_Degrees(one) if context.protocol == 3 else f"{_Degrees(one)}".encode() for one in place]


@native("geopos")
def geopos(context: Context, args: list[bytes]) -> Reply:
    scores = _scores(context, args[1], args[2:])
    return [NULL_ARRAY if score is None else _shown(context, decode(score)) for score in scores]


@native("geohash")
def geohash(context: Context, args: list[bytes]) -> Reply:
    return [None if score is None else _letters(score) for score in _scores(context, args[1], args[2:])]


def _letters(score: float) -> bytes:
    """The usual geohash, whose latitudes reach from pole to pole; its last letter is always 0."""
    bits = encode(decode(score), (-90.0, 90.0))
    return "".join(_LETTERS[bits >> (52 - 5 * (n + 1)) & 31] if n < 10 else "0" for n in range(11)).encode()


# --- what is near


def _length(value: bytes, unit: bytes, what: str, negative: str) -> float:
    """A length in metres."""
    length = floating(value, f"ERR need numeric {what}")
    if length < 0:
        raise ErrorReply(f"ERR {negative} cannot be negative")
    return length * _unit(unit)


@dataclass(slots=True)
class _Search:
    """What is looked for."""

    zset: ZSet | None
    center: Place | None = None
    given: bool = False
    """Whether a centre is given, be it a member of nothing."""
    sides: tuple[float, ...] = ()
    """A radius, or width and height, in metres."""
    unit: float = 1.0
    words: frozenset[bytes] = frozenset()
    count: int = 0
    target: bytes | None = None
    by_distance: bool = False

    def member(self, name: bytes) -> None:
        """Look around a member."""
        self.given = True
        if self.zset is not None:
            if name not in self.zset:
                raise ErrorReply("ERR could not decode requested zset member")
            self.center = decode(self.zset[name])

    def place(self, longitude: bytes, latitude: bytes) -> None:
        """Look around a place."""
        self.given, self.center = True, _place(longitude, latitude)

    def shape(self, *words: bytes) -> None:
        """Look within a radius, or a box; the unit is the last word."""
        self.unit = _unit(words[-1])
        if len(words) == 2:
            self.sides = (_length(*words, "radius", "radius"),)
        else:
            names = ("width", "height")
            self.sides = tuple(
                _length(side, words[-1], name, "height or width") for side, name in zip(words, names, strict=False)
            )

    def inside(self, place: Place) -> float | None:
        """How far a place is from the center; None if it is too far."""
        assert self.center is not None
        far = distance(self.center, place)
        if len(self.sides) == 1:
            return far if far <= self.sides[0] else None
        if distance(self.center, (self.center[0], place[1])) > self.sides[1] / 2:
            return None
        return far if distance(place, (self.center[0], place[1])) <= self.sides[0] / 2 else None

    def hits(self) -> list[tuple[float, bytes, float, Place]]:
        """What is near: distance, member, score and place."""
        found = []
        for score, member in self.zset._byscore if self.zset is not None else ():
            far = self.inside(decode(score))
            if far is not None:
                found.append((far, member, score, decode(score)))
        if self.words & {b"asc", b"desc"} or (self.count and b"any" not in self.words):
            found.sort(key=lambda hit: hit[0], reverse=b"desc" in self.words)
        return found[: self.count or None]


_SHOWN = frozenset({b"withdist", b"withcoord", b"withhash"})
_WORDS = _SHOWN | {b"asc", b"desc", b"any"}


def _options(search: _Search, name: str, args: list[bytes], index: int) -> None:
    """Take the options of a search from an index on; those of GEOSEARCH say also where and how far."""
    free = name.startswith("geosearch")
    words: set[bytes] = set()
    while index < len(args):
        option, rest = args[index].lower(), args[index + 1 :]
        index += 1
        match option:
            case _ if option in _WORDS:
                words -= {b"asc", b"desc"} if option in (b"asc", b"desc") else set()
                words.add(option)
            case b"storedist" if name == "geosearchstore":
                search.by_distance = True
            case b"count" if rest:
                search.count, index = integer(rest[0]), index + 1
                if search.count <= 0:
                    raise ErrorReply("ERR COUNT must be > 0")
            case b"store" | b"storedist" if rest and not free and not name.endswith("_ro"):
                search.target, search.by_distance, index = rest[0], option == b"storedist", index + 1
            case b"frommember" if rest and free and not search.given:
                search.member(rest[0])
                index += 1
            case b"fromlonlat" if len(rest) > 1 and free and not search.given:
                search.place(rest[0], rest[1])
                index += 2
            case b"byradius" if len(rest) > 1 and free and not search.sides:
                search.shape(*rest[:2])
                index += 2
            case b"bybox" if len(rest) > 2 and free and not search.sides:
                search.shape(*rest[:3])
                index += 3
            case _:
                raise ErrorReply(SYNTAX)
    search.words = frozenset(words)
    _check(search, name)


def _check(search: _Search, name: str) -> None:
    """Raise where options miss others, or exclude them."""
    if search.target is not None and search.words & _SHOWN:
        what = "GEOSEARCHSTORE" if name == "geosearchstore" else "STORE option in GEORADIUS"
        raise ErrorReply(f"ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
    if not search.given:
        raise ErrorReply(f"ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}")
    if not search.sides:
        raise ErrorReply(f"ERR exactly one of BYRADIUS and BYBOX can be specified for {name}")
    if b"any" in search.words and not search.count:
        raise ErrorReply("ERR the ANY argument requires COUNT argument")


def _answer(context: Context, search: _Search) -> Reply:
    """What is found, or how much of it has been stored."""
    hits = search.hits()
    if search.target is None:
        return [_hit(context, search, *hit) for hit in hits]
    stored = ZSet()
    for far, member, score, _ in hits:
        stored.add(member, far / search.unit if search.by_distance else score)
    return store(context, search.target, stored)


def _hit(context: Context, search: _Search, far: float, member: bytes, score: float, place: Place) -> Reply:
    parts: list[Reply] = [member]
    if b"withdist" in search.words:
        parts.append(_metres(far / search.unit))
    if b"withhash" in search.words:
        parts.append(int(score))
    if b"withcoord" in search.words:
        parts.append(_shown(context, place))
    return parts if len(parts) > 1 else member


@native("georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro")
def georadius(context: Context, args: list[bytes]) -> Reply:
    name = text(args[0]).lower()
    search = _Search(context.get(args[1], ZSet))
    start = 3 if "bymember" in name else 4
    if start == 3:
        search.member(args[2])
    else:
        search.place(args[2], args[3])
    search.shape(args[start], args[start + 1])
    _options(search, name, args, start + 2)
    return _answer(context, search)


@native("geosearch", "geosearchstore")
def geosearch(context: Context, args: list[bytes]) -> Reply:
    name = text(args[0]).lower()
    stores = name == "geosearchstore"
    search = _Search(context.get(args[1 + stores], ZSet), target=args[1] if stores else None)
    _options(search, name, args, 2 + stores)
    return _answer(context, search)
