"""One libcurl easy handle: sends one request at a time, hashes the body and hands it on.

libcurl hands the body over as `bytes` of up to 16 KiB (pycurl has no way to receive into a buffer in the multi
interface). They are collected in a list by C code alone, and taken from there many at a time: a Python function called
for each of them cost a sixth of a cold epoch's CPU. The handle is reused: a GET costs one `setopt`, of the URL.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import lru_cache
from typing import IO, Any

import pycurl
import xxhash

from aiscache.checksums import Hasher, is_known, new_hasher
from aiscache.origin.certificates import certificate_advice
from aiscache.origin.failures import Refusal
from aiscache.origin.fetched import Body, Sink
from aiscache.origin.head import Head, difference, parse_head
from aiscache.origin.names import requoted
from aiscache.origin.outcome import Arrived, Broken, Changed, Corrupt, Outcome, Redirected, Refused
from aiscache.origin.settings import OriginSettings
from aiscache.origin.task import GET, HEAD, Task

_ERROR_BODY_BYTES = 1 << 20  # of a body that is no object: an error, the cluster map
_SPOOL_BYTES = 4 << 20  # of a body without a length, kept in the heap before it goes to a temporary file
_COPY_BYTES = 1 << 20
_MOST_CHUNKS = 32  # that are collected before they are taken: half a megabyte, which the processor's cache still has
_RECEIVE_BYTES = 128 << 10
_IDLE_CONNECTION_S = 25  # AIS closes a connection that was idle for about 30 s

_FINAL_CODES = frozenset(
    getattr(pycurl, f"E_{name}")
    for name in ("SSL_CERTPROBLEM", "SSL_CACERT", "PEER_FAILED_VERIFICATION", "SSL_CACERT_BADFILE", "SSL_ISSUER_ERROR",
                 "URL_MALFORMAT", "UNSUPPORTED_PROTOCOL")
    if hasattr(pycurl, f"E_{name}")
)  # fmt: skip
_CONNECT_CODES = frozenset((pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_RESOLVE_PROXY))


class Wire:
    """An easy handle and the request that it carries."""

    def __init__(self, settings: OriginSettings, sockets: dict[int, int]) -> None:
        self.curl = pycurl.Curl()
        self._sockets = sockets
        self._lines: list[bytes] = []
        self._chunks: list[bytes] = []
        self._bodyless = False
        self._forget()
        self._configure(settings)

    def _configure(self, settings: OriginSettings) -> None:
        set_option = self.curl.setopt
        set_option(pycurl.NOSIGNAL, 1)
        set_option(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        set_option(pycurl.BUFFERSIZE, _RECEIVE_BYTES)
        set_option(pycurl.CONNECTTIMEOUT_MS, max(1, int(settings.connect_timeout_s * 1000)))
        set_option(pycurl.MAXAGE_CONN, _IDLE_CONNECTION_S)
        set_option(pycurl.HEADERFUNCTION, self._lines.append)
        set_option(pycurl.WRITEFUNCTION, self._chunks.append)
        set_option(pycurl.SOCKOPTFUNCTION, self._on_socket)
        set_option(pycurl.USERAGENT, "aiscache")
        if settings.token:
            set_option(pycurl.HTTPHEADER, [f"Authorization: Bearer {settings.token}"])
        if settings.endpoint.startswith("https:"):
            _configure_tls(set_option, settings)

    def _forget(self) -> None:
        self._chunks.clear()
        self._task: Task | None = None
        self._sink: Sink | None = None
        self._head: Head | None = None
        self._into: Body | None = None
        self._hasher: Hasher | None = None  # for the checksum that came with the object
        self._hashers: list[Hasher] = []  # that and, last of them, the one for `Fetched.xxh64`
        self._spool: IO[bytes] | None = None
        self._other = bytearray()
        self._verdict: Outcome | None = None
        self._taken = 0

    @property
    def task(self) -> Task:
        """The request that is being carried."""
        assert self._task is not None  # noqa: S101 -- callers ask only between start and finish
        return self._task

    def start(self, task: Task, sink: Sink) -> None:
        """Take a request; the caller adds `curl` to its multi handle."""
        bodyless = task.verb == HEAD
        if bodyless is not self._bodyless:
            self.curl.setopt(pycurl.NOBODY if bodyless else pycurl.HTTPGET, 1)
            self._bodyless = bodyless
        self.curl.setopt(pycurl.URL, task.url or task.node + task.path)
        self._lines.clear()
        self._forget()
        self._task, self._sink = task, sink

    @property
    def received(self) -> int:
        """The bytes of the body that have come."""
        return self._taken + sum(map(len, self._chunks))

    def progress(self) -> int:
        """A number that grows with whatever arrives."""
        return self.received + len(self._lines)

    def drop(self) -> None:
        """Forget the request and what came of it."""
        if self._spool is not None:
            self._spool.close()
        self._lines.clear()
        self._forget()

    def _on_socket(self, fd: int, _purpose: int) -> int:
        self._sockets[fd] = os.fstat(fd).st_ino
        return int(pycurl.SOCKOPT_OK)

    # ---- the body

    def is_loaded(self) -> bool:
        """Tell whether so much has come that it should be taken."""
        return len(self._chunks) >= _MOST_CHUNKS

    def take(self) -> Outcome | None:
        """Hand on what has come; return an outcome if the rest need not be waited for. Raises what the sink raises."""
        if self._head is None:
            self._begin()
        if self._verdict is not None:
            return self._verdict
        if not self._chunks:
            return None
        chunks, came = self._chunks, self.received
        if self._into is not None:
            if came > self._into.length:
                self._verdict = Broken(f"{came:,} bytes came where {self._into.length:,} were said to")
                return self._verdict
            self._into.write(chunks)
        elif self._spool is not None:
            self._spool.writelines(chunks)
        elif len(self._other) < _ERROR_BODY_BYTES:
            self._other += b"".join(chunks)
        for hasher in self._hashers:
            for chunk in chunks:
                hasher.update(chunk)
        self._taken = came
        chunks.clear()
        return None

    def _begin(self) -> None:
        """Decide where the body goes, once the head is there."""
        head = self._head = self.task.head = parse_head(self._lines)
        if head.status != 200 or self.task.verb != GET:
            return
        changed = difference(self.task.ref, head, size=head.length)
        if changed:
            self._verdict = Changed(changed)
            return
        # With an ETL, a checksum would be that of the source.
        self._hasher = None if self.task.ref.etl else new_hasher(head.checksum_type)
        if self._hasher is None and not is_known(head.checksum_type):
            _warn_unknown(head.checksum_type)
        if self._hasher is not None:
            self._hashers.append(self._hasher)
        if not isinstance(self._hasher, xxhash.xxh64):
            self._hashers.append(xxhash.xxh64())
        if head.length >= 0:
            self._into = self._open(head.length)
        else:
            self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 -- closed by drop

    def _open(self, size: int) -> Body:
        """Return where the body goes: where that of the try before went, if it fits."""
        task = self.task
        if task.body is None or task.body.length != size:
            assert self._sink is not None  # noqa: S101 -- set by start
            task.body = self._sink.open(task.index, size)
            if task.body.length != size:
                raise ValueError(f"the sink opened a body of {task.body.length} bytes for one of {size}")
        else:
            task.body.restart()
        return task.body

    # ---- the end of a request

    def finish(self, code: int, message: str) -> Outcome:
        """Judge what arrived; `code` is libcurl's (0 for a whole response). Raises what the sink raises."""
        if code == 0 or self._chunks:
            self.take()
        if self._verdict is not None:
            return self._verdict
        if code != 0:
            return self._broken(code, message)
        assert self._head is not None  # noqa: S101 -- _begin set it
        head = self._head
        if not head.complete:
            return Broken("the connection closed within the head of the response")
        if head.status in (301, 302, 303, 307, 308) and head.location:
            return Redirected(requoted(head.location))
        if head.status != 200:
            body = head.error or self.other_body
            return Refused(Refusal.read(head.status, body, retry_after_s=head.retry_after_s))
        return self._vouch(head) if self.task.verb == GET else Arrived()

    @property
    def other_body(self) -> bytes:
        """The body of an answer that is no object."""
        return bytes(self._other[:_ERROR_BODY_BYTES])

    def silent(self, limit_s: float) -> Broken:
        """The outcome of a request that the caller gives up because nothing moved."""
        connected = self.curl.getinfo(pycurl.PRETRANSFER_TIME) > 0
        got = (
            f"{self.received:,} bytes, then nothing for {limit_s:.3g} s"
            if connected
            else f"no connection in {limit_s:.3g} s"
        )
        return Broken(got, timed_out=True, connected=connected)

    def slow(self, elapsed_s: float) -> Broken:
        """The outcome of a request that the caller gives up because its body does not come at `LEAST_RATE`."""
        return Broken(f"only {self.received:,} bytes came in {elapsed_s:.3g} s", timed_out=True)

    def _broken(self, code: int, message: str) -> Broken:
        text = message or self.curl.errstr() or f"libcurl error {code}"
        head = self._head
        if head is not None and head.status == 200 and self.received:
            expected = f" of {head.length:,}" if head.length >= 0 else ""
            text = f"{self.received:,}{expected} bytes came, then: {text}"
        return Broken(
            text,
            timed_out=code == pycurl.E_OPERATION_TIMEDOUT,
            final=code in _FINAL_CODES or bool(certificate_advice(text)),
            connected=code not in _CONNECT_CODES,
        )

    def _vouch(self, head: Head) -> Outcome:
        """Hold the whole body against the length and the checksum that came with it."""
        task = self.task
        if head.length >= 0 and self.received != head.length:
            return Broken(f"{self.received:,} of {head.length:,} bytes came")
        if head.length < 0 and not head.chunked:
            return Broken(f"{self.received:,} bytes came, without a length that would tell whether that is all")
        if self._spool is not None:
            changed = difference(task.ref, head, size=self.received)
            if changed:
                return Changed(changed)
            self._unspool()
        if self._hasher is not None and head.checksum:
            found = self._hasher.hexdigest()
            if found != head.checksum:
                return Corrupt(head.checksum_type, head.checksum, found)
            task.verified = True
        task.size = self.received
        task.xxh64 = int(self._hashers[-1].hexdigest(), 16)
        return Arrived()

    def _unspool(self) -> None:
        """Copy a body that came without a length to the sink, a piece at a time."""
        assert self._spool is not None  # noqa: S101 -- the caller looked
        into = self._open(self.received)
        self._spool.seek(0)
        while piece := self._spool.read(_COPY_BYTES):
            into.write((piece,))


def _configure_tls(set_option: Any, settings: OriginSettings) -> None:
    set_option(pycurl.SSL_VERIFYPEER, int(settings.verify))
    set_option(pycurl.SSL_VERIFYHOST, 2 if settings.verify else 0)
    if settings.verify:
        trusted = settings.ca or _usual_ca()
        set_option(pycurl.CAPATH if os.path.isdir(trusted) else pycurl.CAINFO, trusted)
    if settings.client_cert:
        set_option(pycurl.SSLCERT, settings.client_cert[0])
        set_option(pycurl.SSLKEY, settings.client_cert[-1])


@lru_cache(maxsize=16)
def _warn_unknown(kind: str) -> None:
    warnings.warn(
        f"the cluster sends checksums of type {kind!r}, which aiscache cannot compute: objects with them "
        "are compared by size and version only",
        UserWarning,
        stacklevel=2,
    )


def _usual_ca() -> str:
    """The bundle that `requests`, and so the SDK, trusts."""
    import certifi

    return certifi.where()
