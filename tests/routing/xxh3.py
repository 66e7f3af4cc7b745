"""XXH3, 64 bits, seed 0, for inputs of 4 to 64 bytes: from its specification, for comparison only.

Specification: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from typing import Final

MASK: Final = 2**64 - 1
SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
)
PRIME64_1: Final = 0x9E3779B185EBCA87
PRIME_MX1: Final = 0x165667919E3779F9
PRIME_MX2: Final = 0x9FB21C651E98DF25


def u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def folded(one: int, other: int) -> int:
    product = one * other
    return (product & MASK) ^ (product >> 64)


def rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & MASK


def avalanche(value: int) -> int:
    value ^= value >> 37
    value = value * PRIME_MX1 & MASK
    return value ^ value >> 32


def of_4_to_8(data: bytes) -> int:
    size = len(data)
    flip = u64(SECRET, 8) ^ u64(SECRET, 16)
    value = (u32(data, size - 4) + (u32(data, 0) << 32)) ^ flip
    value ^= rotated(value, 49) ^ rotated(value, 24)
    value = value * PRIME_MX2 & MASK
    value ^= (value >> 35) + size
    value = value * PRIME_MX2 & MASK
    return value ^ value >> 28


def of_9_to_16(data: bytes) -> int:
    size = len(data)
    low = u64(data, 0) ^ u64(SECRET, 24) ^ u64(SECRET, 32)
    high = u64(data, size - 8) ^ u64(SECRET, 40) ^ u64(SECRET, 48)
    swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
    return avalanche((size + swapped + high + folded(low, high)) & MASK)


def mixed(data: bytes, at: int, secret: int) -> int:
    return folded(u64(data, at) ^ u64(SECRET, secret), u64(data, at + 8) ^ u64(SECRET, secret + 8))


def of_17_to_64(data: bytes) -> int:
    size = len(data)
    total = size * PRIME64_1
    for lane in range((size - 1) // 32 + 1):
        total += mixed(data, 16 * lane, 32 * lane) + mixed(data, size - 16 * (lane + 1), 32 * lane + 16)
    return avalanche(total & MASK)


def xxh3_64(data: bytes) -> int:
    """Return the hash of 4 to 64 bytes."""
    assert 4 <= len(data) <= 64
    if len(data) <= 8:
        return of_4_to_8(data)
    return of_9_to_16(data) if len(data) <= 16 else of_17_to_64(data)
