"""The private line between the test process and one node: frames over a socket pair, file descriptors included.

It is also the node's lifeline: when the test process ends, however it ends, the node reads end-of-file and exits.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgspec

_HEAD = struct.Struct("<QB")  # length of the message, number of descriptors with it


class ClosedError(ConnectionError):
    """The other side is gone."""


class Channel:
    """One end of the line. Blocking; a message is anything msgpack can carry."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, message: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Send one message, and duplicates of the descriptors with it."""
        body = msgspec.msgpack.encode(message)
        head = _HEAD.pack(len(body), len(descriptors))
        try:
            if descriptors:
                socket.send_fds(self.sock, [head], descriptors)
            else:
                self.sock.sendall(head)
            self.sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedError(str(error)) from error

    def receive(self) -> tuple[Any, list[int]]:
        """The next message and the descriptors that came with it; raises `ClosedError` at the end of the line."""
        try:
            head, descriptors, _, _ = socket.recv_fds(self.sock, _HEAD.size, 8)
            head += self._exactly(_HEAD.size - len(head)) if head else b""
        except ConnectionResetError as error:
            raise ClosedError(str(error)) from error
        if not head:
            raise ClosedError("end of file")
        length, _ = _HEAD.unpack(head)
        return msgspec.msgpack.decode(self._exactly(length)), descriptors

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            received = self.sock.recv_into(view)
            if not received:
                raise ClosedError("end of file in a message")
            view = view[received:]
        return data

    def close(self) -> None:
        """Hang up."""
        self.sock.close()
