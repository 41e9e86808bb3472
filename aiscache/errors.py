"""The errors that aiscache raises::

    AiscacheError
    ├── ConfigError (ValueError)              an argument or environment variable with a bad value
    ├── CacheError
    │   ├── CacheDirectoryError               the cache directory is not usable: owner, mode, format, file system
    │   ├── CacheClosedError                  a handle was used after close()
    │   ├── CacheFullError                    what was to be brought into the cache does not fit
    │   ├── NotCachedError (LookupError)      an object or a listing is not in the cache, and that is offline
    │   └── CorruptError                      bytes on disk are not what was written
    ├── ManifestError                         a stored listing is damaged or from another format
    ├── ShardError                            an object that is read as a shard is no whole tar archive
    └── OriginError                           the cluster said no, or nothing
        ├── BucketNotFoundError (LookupError)
        ├── ObjectNotFoundError (LookupError)
        ├── EtlNotFoundError (LookupError)
        ├── AuthenticationError               401 or 403
        ├── UnreachableError (ConnectionError)
        ├── OriginTimeoutError (TimeoutError)
        ├── ObjectChangedError                the object is no longer the version that the listing named
        └── ChecksumMismatchError             the bytes received are not the bytes the cluster vouched for

Every error takes one message, so that it survives pickling and torch's re-raising of worker errors, which calls
`type(error)(message)`. Details for programs are attributes, set as keyword arguments.
"""

from __future__ import annotations

from typing import Any


class AiscacheError(Exception):
    """Base of all errors of this package; `details` become attributes and cross processes with the error."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.__dict__.update(details)


class ConfigError(AiscacheError, ValueError):
    """A setting has a value that cannot be used; the message names the setting, the value and what is accepted."""


class CacheError(AiscacheError):
    """Base of the errors of the local cache."""


class CacheDirectoryError(CacheError):
    """A cache directory is refused; the message says why and what to do."""


class CacheClosedError(CacheError):
    """A cache handle was used after `close()`."""


class CacheFullError(CacheError):
    """What was to be brought into the cache does not fit; the message has the figures."""


class NotCachedError(CacheError, LookupError):
    """What is wanted is not in the cache, which is offline, so it is not fetched; `missing` says how much is not."""


class CorruptError(CacheError):
    """Bytes in the cache directory are not what was written there."""


class ManifestError(AiscacheError):
    """A stored listing cannot be read."""


class ShardError(AiscacheError):
    """An object is no whole tar archive; `shard` is its URL and `offset` where in its (uncompressed) bytes it ends."""


class OriginError(AiscacheError):
    """Base of the errors that come from the AIS cluster; `status` is the HTTP status where there was one."""


class BucketNotFoundError(OriginError, LookupError):
    """The bucket does not exist on the cluster."""


class ObjectNotFoundError(OriginError, LookupError):
    """The object does not exist on the cluster."""


class EtlNotFoundError(OriginError, LookupError):
    """The named ETL does not exist on the cluster."""


class AuthenticationError(OriginError):
    """The cluster refused the credentials (401 or 403)."""


class UnreachableError(OriginError, ConnectionError):
    """No connection to the cluster, or the connection broke, on every try."""


class OriginTimeoutError(OriginError, TimeoutError):
    """The cluster did not answer within the client's timeout."""


class ObjectChangedError(OriginError):
    """The object was overwritten since the listing was made; list again to read the new version."""


class ChecksumMismatchError(OriginError):
    """The bytes received twice differ from the checksum that the cluster sent with them."""
