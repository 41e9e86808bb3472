"""What goes over the links between trainer, pool and workers: `SOCK_SEQPACKET` sockets, one message a packet.

    trainer -> pool     first the pickled Job; then (EPOCH, number, start) or (ROWS, epoch, count)
    pool -> worker      epoch, then position and row of each object of a chunk
    worker -> pool      epoch, then position and outcome of each object settled, and its bytes

An empty packet is the end: the other side closed its end, or died.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Iterable
from struct import Struct

from aiscache.prefetch.plan import Outcome

EPOCH, ROWS = 1, 2
LONGEST = 64 << 10

_EVENT = Struct("<BQQ")


def link() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a link; neither is inherited by a program that is started."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def pack_event(kind: int, epoch: int, number: int) -> bytes:
    """Return an event of the trainer's."""
    return _EVENT.pack(kind, epoch, number)


def unpack_event(packet: bytes) -> tuple[int, int, int]:
    """Return kind, epoch and number."""
    kind, epoch, number = _EVENT.unpack(packet)
    return kind, epoch, number


def pack_chunk(epoch: int, work: Iterable[tuple[int, int]]) -> bytes:
    """Return a chunk of (position, row)."""
    return array("q", [epoch, *(number for pair in work for number in pair)]).tobytes()


def unpack_chunk(packet: bytes) -> tuple[int, list[tuple[int, int]]]:
    """Return the epoch, and (position, row) of each object."""
    epoch, *numbers = array("q", packet)
    return epoch, list(zip(numbers[::2], numbers[1::2], strict=True))


def pack_report(epoch: int, settled: Iterable[tuple[int, Outcome, int]]) -> bytes:
    """Return a report of (position, outcome, bytes)."""
    return array("q", [epoch, *(number for one in settled for number in one)]).tobytes()


def unpack_report(packet: bytes) -> tuple[int, list[tuple[int, Outcome, int]]]:
    """Return the epoch, and (position, outcome, bytes) of each object."""
    epoch, *numbers = array("q", packet)
    outcomes = map(Outcome, numbers[1::3])
    return epoch, list(zip(numbers[::3], outcomes, numbers[2::3], strict=True))
