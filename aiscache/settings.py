"""What users set: sizes such as "200GB", the environment, the cache's settings. Argument > environment > default."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from aiscache.errors import ConfigError

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGTP]?)(I?)B?\s*", re.IGNORECASE)

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


def parse_size(value: int | str, *, name: str) -> int:
    """Return a size in bytes from `"200GB"` (powers of 1000), `"1.5GiB"` (powers of 1024) or a number of bytes.

    `name` is the setting that the error names: ConfigError if the value cannot be read or is not positive.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ConfigError(f'{name}={value!r} is not a size; write bytes or a number with a unit: "200GB", "1.5GiB"')
        number, unit, binary = match.groups()
        base = 1024 if binary else 1000
        size = (
            int(float(number) * base ** _UNITS[unit.upper()])
            if "." in number
            else int(number) * base ** _UNITS[unit.upper()]
        )
    if size <= 0:
        raise ConfigError(f"{name}={value!r} must be more than 0 bytes")
    return size


def format_size(size_bytes: float) -> str:
    """Return a size for people, in powers of 1000: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} PB"


def env(name: str) -> str | None:
    """Return the environment variable, None if it is unset or empty."""
    return os.environ.get(name) or None


def env_flag(name: str) -> bool:
    """Return an on/off environment variable; ConfigError if it is neither."""
    value = os.environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise ConfigError(f"{name}={os.environ[name]!r} is neither on (1, true, yes, on) nor off (0, false, no, off)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """All that a cache handle is made from, and all of it that crosses to another process.

    `path` None is the unnamed cache in shared memory. `capacity_bytes` and `memory_bytes` None stand for the default.
    """

    path: str | None = None
    capacity_bytes: int | None = None
    memory_bytes: int | None = None
    verify: str = "fill"
    offline: bool = False

    @classmethod
    def resolve(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        capacity: int | str | None = None,
        memory: int | str | None = None,
        verify: str = "fill",
        offline: bool | None = None,
    ) -> CacheSettings:
        """Return settings from a user's arguments, filled from the environment; ConfigError names what is wrong."""
        path = os.fspath(path) if path is not None else env("AISCACHE_DIR")
        if verify not in ("fill", "read"):
            raise ConfigError(f'verify={verify!r} must be "fill" (when an object is fetched) or "read" (each read too)')
        return cls(
            path=None if path is None else os.path.abspath(os.path.expanduser(path)),
            capacity_bytes=_size_setting(capacity, "capacity", "AISCACHE_CAPACITY"),
            memory_bytes=_size_setting(memory, "memory", "AISCACHE_MEMORY"),
            verify=verify,
            offline=env_flag("AISCACHE_OFFLINE") if offline is None else bool(offline),
        )


def _size_setting(value: int | str | None, name: str, variable: str) -> int | None:
    if value is not None:
        return parse_size(value, name=name)
    from_env = env(variable)
    return None if from_env is None else parse_size(from_env, name=variable)
