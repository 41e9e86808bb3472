"""The proxy's redirect to the target that owns an object.

Recorded: 016-032, 043. AIStore writes the location in one of two ways: names with a character that a URL can't hold as
it is are escaped and their query sorted; all others go raw (quotes and backslashes included), only non-ASCII escaped.
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from aiscache.devserver.messages import Response

if TYPE_CHECKING:
    from aiscache.devserver.messages import Request
    from aiscache.devserver.smap import Node

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ESCAPED = frozenset(" %?#+")
_DISCARD = 256 << 10  # bytes of a body that the proxy takes in before it would rather close (recorded: 012)
_PHRASES = {301: "Moved Permanently", 307: "Temporary Redirect"}


def redirect(request: Request, target: Node, *, proxy: Node, path: str = "") -> Response:
    """The answer that sends a client to `target`: 301 to a GET of an object, 307 to anything else.

    Args:
        request: what is redirected.
        target: where to.
        proxy: who redirects; its id goes into the location as `pid`.
        path: the path there, where it differs from the request's.
    """
    status = 301 if request.method == "GET" and not path.startswith("/v1/ml/") else 307
    where = _location(request, path or request.path, proxy.id)
    headers = [("Location", target.url + _header_safe(where))]
    if request.method not in ("GET", "HEAD"):
        close = int(request.header(b"content-length") or 0) > _DISCARD
        return Response(status, headers, close=close)
    headers.insert(0, ("Content-Type", "text/html; charset=utf-8"))
    if request.method == "HEAD":
        return Response(status, headers, length=-1)
    link = html.escape(target.url + where).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    return Response(status, headers, f'<a href="{link}">{_PHRASES[status]}</a>.\n\n'.encode("utf-8", "surrogateescape"))


def _location(request: Request, path: str, proxy_id: str) -> str:
    stamp = _base36(time.time_ns())
    if _ESCAPED.isdisjoint(path):
        query = f"{request.raw_query}&" if request.raw_query else ""
        return f"{path}?{query}pid={proxy_id}&utm={stamp}"
    pairs = [*parse_qsl(request.raw_query, keep_blank_values=True), ("pid", proxy_id), ("utm", stamp)]
    return f"{quote(path, safe='/$&+,:;=@')}?{urlencode(sorted(pairs))}"


def _header_safe(text: str) -> str:
    """Newlines become spaces, as in any header Go writes (030); non-ASCII is escaped, in lower case (018)."""
    if text.isascii():
        return text.replace("\r", " ").replace("\n", " ")
    escaped = (f"%{byte:02x}" if byte >= 0x80 else chr(byte) for byte in text.encode("utf-8", "surrogateescape"))
    return "".join(escaped).replace("\r", " ").replace("\n", " ")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
