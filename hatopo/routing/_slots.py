"""Which slot a key belongs to: CRC16 of its hash tag modulo 16384 (Redis Cluster specification)."""

from __future__ import annotations

from binascii import crc_hqx

SLOTS = 16384


def hash_tag(key: bytes) -> bytes:
    """What is hashed: the part between the first "{" and the next "}" if there is any, else the whole key."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            return key[start + 1 : end]
    return key


def slot_of(key: bytes) -> int:
    """The slot of a key. CRC16 is the XMODEM variant, which `binascii.crc_hqx` computes."""
    return crc_hqx(hash_tag(key), 0) % SLOTS
