"""Where and with what it was measured."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

_PACKAGES = (
    "aiscache",
    "aistore",
    "torch",
    "numpy",
    "lmdb",
    "pycurl",
    "webdataset",
    "litdata",
    "mosaicml-streaming",
    "diskcache",
    "multi-storage-client",
)


def environment() -> dict[str, Any]:
    """Return date, machine and versions."""
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "linux": platform.release(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def told(environment: dict[str, Any]) -> str:
    """Return the same in words."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    return (
        f"{environment['date']}, {environment['cores']} cores, {environment['memory_bytes'] / (1 << 30):.0f} GiB, "
        f"Linux {environment['linux']}, Python {environment['python']}; {packages}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
