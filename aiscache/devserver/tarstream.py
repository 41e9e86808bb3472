"""TAR entries one by one, as AIStore streams them (recorded: 094)."""

from __future__ import annotations

import tarfile

END = bytes(1024)  # two zero blocks end a TAR; AIStore pads no further


def entry(name: str, data: bytes) -> bytes:
    """One member: its header (with a PAX one before it where the name is long or not ASCII), its bytes, padding."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return head + data + bytes(-len(data) % 512)
