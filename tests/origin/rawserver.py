"""A raw socket server whose every byte the test decides: for truncation, resets, garbage, silence.

`RawServer(answer)` calls `answer(request)` for each request of each connection, in a thread per connection. The answer
is bytes to send, or a list of bytes, numbers (seconds to wait) and CLOSE / RESET. The connection stays open otherwise.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

import xxhash

CLOSE, RESET = "close", "reset"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]


Answer = bytes | list


class RawServer:
    def __init__(self, answer: Callable[[Request], Answer], *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self._tls = tls
        self.requests: list[Request] = []
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def gets(self) -> list[str]:
        return [request.path for request in self.requests if "/objects/" in request.path]

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        try:
            if self._tls is not None:
                plain = connection
                connection = self._tls.wrap_socket(plain, server_side=True)
                self._connections[self._connections.index(plain)] = connection
            while True:
                while b"\r\n\r\n" not in received:
                    data = connection.recv(65536)
                    if not data:
                        return
                    received += data
                head, received = received.split(b"\r\n\r\n", 1)
                if not self._respond(connection, _request(head)):
                    return
        except OSError:
            return

    def _respond(self, connection: socket.socket, request: Request) -> bool:
        self.requests.append(request)
        answer = self.answer(request)
        for part in [answer] if isinstance(answer, bytes) else answer:
            if isinstance(part, bytes):
                connection.sendall(part)
            elif part == CLOSE:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            elif part == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
                return False
            else:
                self._stop.wait(part)
        return True


def _request(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers)


def response(body: bytes = b"", status: str = "200 OK", /, **headers: str) -> bytes:
    lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def object_response(body: bytes, *, checksum: str | None = None, version: str = "1", kind: str = "xxhash2") -> bytes:
    value = xxhash.xxh64_hexdigest(body) if checksum is None else checksum
    return response(body, Ais_Checksum_Type=kind, Ais_Checksum_Value=value, Ais_Version=version)


def refusal(status: str, code: str = "", message: str = "", **headers: str) -> bytes:
    body = json.dumps({"tcode": code, "message": message, "status": int(status[:3])}).encode()
    return response(body, status, Content_Type="application/json", **headers)


def redirect(url: str) -> bytes:
    return response(b"", "301 Moved Permanently", Location=url)


def smap(*targets: str, uuid: str = "TeStUuId", version: str = "1", flags: dict[str, int] | None = None) -> bytes:
    nodes = {
        f"t{index}": {
            "public_net": {"node_ip_addr": "127.0.0.1", "daemon_port": url.rsplit(":", 1)[1], "direct_url": url},
            "daemon_type": "target",
            "daemon_id": f"t{index}",
            "flags": (flags or {}).get(url, 0),
            "id_digest": xxhash.xxh64_intdigest(f"t{index}".encode(), 1103515245),
        }
        for index, url in enumerate(targets)
    }
    body = json.dumps({"pmap": {}, "proxy_si": {}, "tmap": nodes, "uuid": uuid, "version": version}).encode()
    return response(body, Content_Type="application/json")
