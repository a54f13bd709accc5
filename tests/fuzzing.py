"""Damage to files, as a disk, an editor or an enemy does it, and how a reader has to take it.

A reader may read what is damaged or refuse it in words; nothing else: no other exception, no hang,
no memory beyond a bound. The corpus is seeded: the same damage in every run.
"""

import json
import random
import signal
import tracemalloc

from koinize.errors import KoinizeError

FEW, MANY = 100, 500  # mutations of each of 24 targets: in `make check`, in `make test`
SECONDS = (
    120  # of one mutation: the slowest takes a few hundredths, the first one also imports torch
)
MEGABYTES = 64  # above what there was, of files of a few kilobytes

TELLING = [
    b"9" * 400, b"-1", b"1e999", b"NaN", b"null", b"true", b"{}", b"[]", b'""', b"\xff" * 8,
    b"\0", b"\\u0000", b"\\ud800", b"[" * 120, b'{"a":' * 120, b"../", b"\xe2\x80\xa8", b"\x1b[2J",
    b"&a ", b"*a", b"!!set ", b"<<: ", b"%YAML 1.1\n", b"\r\n", b"\t", b"1" * 5000, b"\xed\xa0\x80",
]  # fmt: skip


def damaged(data, chance):
    """Some bytes flipped, cut, repeated, moved, or replaced by telling ones."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(data)) if data else 0
        end = place + chance.randint(1, 40)
        match chance.randrange(7):
            case 0 if data:
                data[place] ^= 1 << chance.randrange(8)
            case 1:
                del data[place : chance.choice([end, len(data)])]
            case 2:
                data[place:place] = data[place:end]
            case 3:
                piece = data[place:end]
                del data[place:end]
                place = chance.randrange(len(data) + 1)
                data[place:place] = piece
            case 4:
                data[place : place + chance.randint(0, 8)] = chance.choice(TELLING)
            case 5:
                start = data.find(b":", place) + 1  # what stands behind a colon is a value
                data[start : start + chance.randint(1, 9)] = chance.choice(TELLING)
            case _:
                data[:8] = chance.randrange(2**64).to_bytes(8, "little")
    return bytes(data)


def odd(value, chance):
    """A plain value with one part of it gone, doubled, or of another kind."""
    parts = list(_places(value, ()))
    path = chance.choice(parts)
    return _changed(value, path, chance)


def _places(value, path):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for step, part in items:
        yield from _places(part, (*path, step))


ODD = [
    None, True, -1, 0, 1.5, 10**400, float("inf"), "", "x", "\0", "\ud800", "../x", "9" * 400,
    [], [[]], {}, {"a": {}}, [None], "2026-13-01", -(2**63), 1e308,
]  # fmt: skip


def _changed(value, path, chance):
    if not path:
        return chance.choice(ODD)
    step, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    if rest or chance.random() < 0.7:
        copy[step] = _changed(value[step], rest, chance) if rest else chance.choice(ODD)
    else:
        del copy[step]
    return copy


class Hang(BaseException):
    """A reader took too long."""


def _late(*_):
    raise Hang


def attack(read, count, seed, *, write):
    """Let `read` read what `write(chance)` wrote, `count` times; (read, refused).

    Raises what is neither: an exception of another kind, with the number of the mutation.
    """
    chance = random.Random(seed)
    outcomes = {True: 0, False: 0}
    before = signal.signal(signal.SIGALRM, _late)
    tracemalloc.start()
    try:
        for number in range(count):
            write(chance)
            signal.alarm(SECONDS)
            try:
                read()
                outcomes[True] += 1
            except KoinizeError as error:
                said = str(error)
                assert said.strip(), number
                said.encode("utf-8")
                json.dumps(said)
                outcomes[False] += 1
            except BaseException as error:
                error.add_note(f"mutation {number} of seed {seed}")
                raise
            finally:
                signal.alarm(0)
        peak = tracemalloc.get_traced_memory()[1] >> 20
        assert peak < MEGABYTES, f"{peak} MB"
    finally:
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, before)
    return outcomes[True], outcomes[False]
