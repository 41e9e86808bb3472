"""Keeping the memory of one batch for the next.

A batch of `bytes` is freed while the next one is made. glibc gives what lies free at the end of its heap back to the
kernel beyond 128 KiB, and each page of the next batch is then zeroed and faulted in again, which takes more time than
copying the bytes. Both of its limits grow with the largest block that it ever mapped by itself and that was freed
(mallopt(3), M_MMAP_THRESHOLD): so one is allocated, not touched, and freed. The process then keeps up to 64 MB for
itself, as any does that once freed an array of that size. Where the limits were set (MALLOC_TRIM_THRESHOLD_ and the
like), or with another allocator, nothing changes.
"""

from __future__ import annotations

from functools import cache

_LARGEST = (32 << 20) - 8192  # what glibc adapts to is at most 32 MiB, its own overhead included


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to 64 MB; 20 us, once. A forked child inherits it."""
    bytes(_LARGEST)
