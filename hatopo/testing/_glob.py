r"""Decides whether a text matches a pattern of Redis (`*`, `?`, `[a-z]`, `[^a]`, `\`), with all its oddities.

An unclosed bracket ends with the pattern, an empty bracket matches nothing, and an empty text matches only the
empty pattern. Takes time linear in text and pattern for each star, whatever a client sends.
"""

from __future__ import annotations

__all__ = ["matches"]

_STAR, _ANY, _OPEN, _CLOSE, _NOT, _TO, _ESCAPE = b"*?[]^-\\"


def matches(pattern: bytes, text: bytes, ignore_case: bool = False) -> bool:
    """Whether all of `text` is what `pattern` describes; letters of ASCII only have cases."""
    if not text:
        return not pattern
    at = position = retry_at = 0
    star = -1
    while position < len(text):
        if at < len(pattern) and pattern[at] == _STAR:
            star, retry_at, at = at, position, at + 1
            continue
        behind = _match_one(pattern, at, text[position], ignore_case) if at < len(pattern) else 0
        if behind:
            at, position = behind, position + 1
        elif star >= 0:  # the last star takes one character more
            retry_at += 1
            at, position = star + 1, retry_at
        else:
            return False
    return not pattern[at:].strip(b"*")


def _match_one(pattern: bytes, at: int, char: int, ignore_case: bool) -> int:
    """Where the pattern goes on if its part at `at` matches this character, else 0."""
    if pattern[at] == _ANY:
        return at + 1
    if pattern[at] == _OPEN:
        return _match_bracket(pattern, at + 1, char, ignore_case)
    if pattern[at] == _ESCAPE and at + 1 < len(pattern):
        at += 1
    same = pattern[at] == char or (ignore_case and _lower(pattern[at]) == _lower(char))
    return at + 1 if same else 0


def _match_bracket(pattern: bytes, at: int, char: int, ignore_case: bool) -> int:
    """As _match_one, for what follows an opening bracket."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    found = False
    while at < len(pattern) and (pattern[at] != _CLOSE):
        if pattern[at] == _ESCAPE and at + 1 < len(pattern):
            at += 1
            found |= pattern[at] == char  # an escaped letter has a case even where others have none
        elif at + 2 < len(pattern) and pattern[at + 1] == _TO:
            low, high = sorted((pattern[at], pattern[at + 2]), key=_signed)
            order = _lower if ignore_case else _signed
            found |= order(low) <= order(char) <= order(high)
            at += 2
        else:
            found |= pattern[at] == char or (ignore_case and _lower(pattern[at]) == _lower(char))
        at += 1
    return min(at + 1, len(pattern)) if found != negated else 0


def _lower(char: int) -> int:
    """As tolower of C, for which the last character is the end of a file."""
    return char + 32 if 65 <= char <= 90 else -1 if char == 255 else char


def _signed(char: int) -> int:
    """As C compares characters."""
    return char - 256 if char > 127 else char
