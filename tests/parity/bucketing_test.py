"""The vectors of assignment, recomputed by MurmurHash3_x86_32 as its author describes it: whole blocks from the buffer,
then the tail. The server hashes byte by byte."""

import json
import pathlib
import struct

import pytest

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[1] / "vectors" / "bucketing.json").read_text())
MASK = 0xFFFFFFFF


def rotl(x, bits):
    return (x << bits | x >> (32 - bits)) & MASK


def murmur3(key, seed=0):
    h = seed
    blocks = len(key) // 4
    for block in struct.unpack(f"<{blocks}I", key[: 4 * blocks]):
        h ^= rotl(block * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK
        h = (rotl(h, 13) * 5 + 0xE6546B64) & MASK
    tail = int.from_bytes(key[4 * blocks :], "little")
    h ^= rotl(tail * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK
    h ^= len(key)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ h >> shift) * factor & MASK
    return h ^ h >> 16


# Appleby's SMHasher prints this for MurmurHash3_x86_32.
def test_the_hash_is_murmur3():
    hashes = b"".join(struct.pack("<I", murmur3(bytes(range(i)), 256 - i)) for i in range(256))
    assert murmur3(hashes) == 0xB0F57EE3


def test_vectors_cover_what_languages_get_wrong():
    assert len(VECTORS) >= 40
    assert {len(v["unit_hex"]) // 2 % 4 for v in VECTORS} == {0, 1, 2, 3}
    assert any(v["hash"] >= 2**31 for v in VECTORS), "a signed remainder would show"
    assert any("00" in [v["unit_hex"][i : i + 2] for i in range(0, len(v["unit_hex"]), 2)] for v in VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['salt_hex']}-{v['unit_hex'][:40]}")
def test_hash_and_bucket(vector):
    salt, unit = bytes.fromhex(vector["salt_hex"]), bytes.fromhex(vector["unit_hex"])
    assert murmur3(salt + b"\0" + unit) == vector["hash"]
    assert vector["hash"] % 10_000 == vector["bucket"]
