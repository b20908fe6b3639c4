"""Places: decides how longitude and latitude become a score, how far two places are apart, and which are near."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from hatopo.testing._engine_context import SYNTAX, Context, floating, integer, native
from hatopo.testing._engine_data import ZSet
from hatopo.testing._engine_ranges import stored
from hatopo.testing._engine_strings import human
from hatopo.testing._engine_zsets import found, zadd
from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply

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
    return zadd(context, request)


def _metres(value: float) -> bytes:
    return b"%.4f" % value


@native("geodist")
def geodist(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 5:
        raise ErrorReply(SYNTAX)
    unit = _unit(args[4]) if len(args) == 5 else 1.0
    scores = found(context, args[1])
    ends = [None if scores is None else scores.get(member) for member in args[2:4]]
    if ends[0] is None or ends[1] is None:
        return None
    return _metres(distance(decode(ends[0]), decode(ends[1])) / unit)


class _Degrees(float):
    """A coordinate, which is sent with more digits than other doubles."""

    __slots__ = ()

    def __format__(self, how: str) -> str:
        return human(Fraction(self)).decode()


def _shown(context: Context, place: Place) -> Reply:
    if context.protocol == 3:
        return [_Degrees(one) for one in place]
    return [human(Fraction(one)) for one in place]


@native("geopos")
def geopos(context: Context, args: list[bytes]) -> Reply:
    scores = found(context, args[1])
    places = [None if scores is None else scores.get(member) for member in args[2:]]
    return [NULL_ARRAY if score is None else _shown(context, decode(score)) for score in places]


@native("geohash")
def geohash(context: Context, args: list[bytes]) -> Reply:
    scores = found(context, args[1])
    values = [None if scores is None else scores.get(member) for member in args[2:]]
    return [None if score is None else _letters(score) for score in values]


def _letters(score: float) -> bytes:
    """The usual geohash, whose latitudes reach from pole to pole; its last letter is always 0."""
    bits = encode(decode(score), (-90.0, 90.0))
    return "".join(_LETTERS[bits >> (52 - 5 * (n + 1)) & 31] if n < 10 else "0" for n in range(11)).encode()


# --- what is near


@dataclass(slots=True)
class _Search:
    """What is looked for."""

    scores: ZSet | None
    center: Place | None = None
    member: bytes | None = None
    radius: float | None = None
    """In metres; None where a box is meant."""
    box: tuple[float, float] | None = None
    unit: float = 1.0
    words: frozenset[bytes] = frozenset()
    """WITHDIST, WITHCOORD, WITHHASH, ASC, DESC, ANY."""
    count: int = 0
    target: bytes | None = None
    """Where to store what is found."""
    by_distance: bool = False

    def inside(self, place: Place) -> float | None:
        """How far a place is from the center; None if it is too far."""
        assert self.center is not None
        far = distance(self.center, place)
        if self.box is None:
            return far if self.radius is not None and far <= self.radius else None
        if distance((self.center[0], self.center[1]), (self.center[0], place[1])) > self.box[1] / 2:
            return None
        return far if distance((place[0], place[1]), (self.center[0], place[1])) <= self.box[0] / 2 else None


def _length(value: bytes, what: str) -> float:
    try:
        return floating(value)
    except ErrorReply:
        raise ErrorReply(f"ERR need numeric {what}") from None


def _radius(value: bytes, unit: bytes) -> float:
    radius = _length(value, "radius")
    if radius < 0:
        raise ErrorReply("ERR radius cannot be negative")
    return radius * _unit(unit)


def _box(width: bytes, height: bytes, unit: bytes) -> tuple[float, float]:
    sides = _length(width, "width"), _length(height, "height")
    if min(sides) < 0:
        raise ErrorReply("ERR height or width cannot be negative")
    return sides[0] * _unit(unit), sides[1] * _unit(unit)


_WORDS = frozenset({b"withdist", b"withcoord", b"withhash", b"asc", b"desc", b"any"})


class _Options:
    """Takes the options of a search one by one."""

    def __init__(self, name: str, args: list[bytes], search: _Search) -> None:
        self.name, self.args, self.search = name, args, search
        self.words: set[bytes] = set()
        self.free = name.startswith("geosearch")
        """Whether centre and shape are options too."""

    def take(self, index: int) -> int:
        """Take the option at an index; how many words it has."""
        option, rest = self.args[index].lower(), len(self.args) - index - 1
        if option in _WORDS:
            if option in (b"asc", b"desc"):
                self.words -= {b"asc", b"desc"}
            self.words.add(option)
            return 1
        if option == b"count" and rest:
            self.search.count = integer(self.args[index + 1])
            if self.search.count <= 0:
                raise ErrorReply("ERR COUNT must be > 0")
            return 2
        taken = self._shape(option, index, rest) if self.free else self._store(option, index, rest)
        if not taken:
            raise ErrorReply(SYNTAX)
        return taken

    def _store(self, option: bytes, index: int, rest: int) -> int:
        if option in (b"store", b"storedist") and rest and not self.name.endswith("_ro"):
            self.search.target = self.args[index + 1]
            self.search.by_distance = option == b"storedist"
            return 2
        return 0

    def _shape(self, option: bytes, index: int, rest: int) -> int:
        search, args = self.search, self.args
        if option == b"storedist" and self.name == "geosearchstore":
            search.by_distance = True
            return 1
        center = search.center is not None or search.member is not None
        if option == b"frommember" and rest >= 1 and not center:
            search.member = args[index + 1]
            search.center = _member_place(search.scores, search.member)
            return 2
        if option == b"fromlonlat" and rest >= 2 and not center:
            search.center = _place(args[index + 1], args[index + 2])
            return 3
        shaped = search.radius is not None or search.box is not None
        if option == b"byradius" and rest >= 2 and not shaped:
            search.radius = _radius(args[index + 1], args[index + 2])
            search.unit = _unit(args[index + 2])
            return 3
        if option == b"bybox" and rest >= 3 and not shaped:
            search.box = _box(args[index + 1], args[index + 2], args[index + 3])
            search.unit = _unit(args[index + 3])
            return 4
        return 0


def _asked(name: str, args: list[bytes], start: int, search: _Search) -> None:
    options = _Options(name, args, search)
    index = start
    while index < len(args):
        index += options.take(index)
    search.words = frozenset(options.words)
    if search.target is not None and search.words & {b"withdist", b"withcoord", b"withhash"}:
        what = "GEOSEARCHSTORE" if name == "geosearchstore" else "STORE option in GEORADIUS"
        raise ErrorReply(f"ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
    if options.free and search.center is None and search.member is None:
        raise ErrorReply(f"ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}")
    if options.free and search.radius is None and search.box is None:
        raise ErrorReply(f"ERR exactly one of BYRADIUS and BYBOX can be specified for {name}")
    if b"any" in search.words and not search.count:
        raise ErrorReply("ERR the ANY argument requires COUNT argument")


def _member_place(scores: ZSet | None, member: bytes) -> Place | None:
    """The place of a member; None if there is no such key."""
    if scores is None:
        return None
    score = scores.get(member)
    if score is None:
        raise ErrorReply("ERR could not decode requested zset member")
    return decode(score)


def _search(context: Context, search: _Search) -> Reply:
    """What is found, or how much of it has been stored."""
    hits = []
    for score, member in search.scores._byscore if search.scores is not None else ():
        place = decode(score)
        far = search.inside(place)
        if far is not None:
            hits.append((far, member, score, place))
            if b"any" in search.words and len(hits) == search.count:
                break
    if search.words & {b"asc", b"desc"} or (search.count and b"any" not in search.words):
        hits.sort(key=lambda hit: hit[0], reverse=b"desc" in search.words)
    if search.count:
        del hits[search.count :]
    if search.target is not None:
        return stored(
            context,
            search.target,
            sorted((far / search.unit if search.by_distance else score, member) for far, member, score, _ in hits),
        )
    shown: list[Reply] = []
    for far, member, score, place in hits:
        parts: list[Reply] = [member]
        if b"withdist" in search.words:
            parts.append(_metres(far / search.unit))
        if b"withhash" in search.words:
            parts.append(int(score))
        if b"withcoord" in search.words:
            parts.append(_shown(context, place))
        shown.append(parts if len(parts) > 1 else member)
    return shown


@native("georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro")
def georadius(context: Context, args: list[bytes]) -> Reply:
    name = args[0].decode("latin-1").lower()
    scores = found(context, args[1])
    search = _Search(scores)
    if "bymember" in name:
        start = 3
        search.center = _member_place(scores, args[2])
    else:
        start = 4
        search.center = _place(args[2], args[3])
    if scores is not None or start == 4:
        search.radius = _radius(args[start], args[start + 1])
        search.unit = _unit(args[start + 1])
    _asked(name, args, start + 2, search)
    return _search(context, search)


@native("geosearch", "geosearchstore")
def geosearch(context: Context, args: list[bytes]) -> Reply:
    name = args[0].decode("latin-1").lower()
    start = 3 if name == "geosearchstore" else 2
    scores = found(context, args[start - 1])
    search = _Search(scores, target=args[1] if name == "geosearchstore" else None)
    _asked(name, args, start, search)
    return _search(context, search)
