"""Which samples a shard has, and where their members lie: `ShardIndex`, a few flat columns.

A sample is the files of one folder with one basename (the name up to its first dot); each is known by its extension
(what follows the last dot), as in `aistore.pytorch`. Files without an extension belong to no sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from aiscache.datasets.tar_members import Member
from aiscache.errors import ManifestError

_HEAD = Struct("<QQQQQ")  # samples, members, extensions, bytes of all keys, bytes of all extensions


class ShardIndex:
    """The samples of one shard, in the order in which the shard names them first; read from one block of bytes.

    `end` is where the last member ends: the shard has at least so many bytes. ManifestError for a block that is not
    consistent in itself.
    """

    __slots__ = ("_extension_of", "_firsts", "_key_ends", "_keys", "_offsets", "_sizes", "block", "end", "extensions")

    def __init__(self, block: memoryview) -> None:
        self.block = block
        if len(block) < _HEAD.size:
            raise ManifestError(f"an index of a shard's members is damaged: {len(block)} bytes")
        samples, members, extensions, keys_bytes, extensions_bytes = _HEAD.unpack_from(block)
        lengths = [8 * members, 8 * members, 8 * (samples + 1), 8 * (samples + 1), 8 * (extensions + 1)]
        lengths += [8 * members, keys_bytes, extensions_bytes]
        if _HEAD.size + sum(lengths) != len(block):
            raise ManifestError(f"an index of a shard's members is damaged: {len(block)} bytes for {samples} samples")
        columns, at = [], _HEAD.size
        for length in lengths:
            columns.append(block[at : at + length])
            at += length
        self._offsets, self._sizes, self._firsts, self._key_ends, ends, self._extension_of = (
            column.cast("Q") for column in columns[:6]
        )
        self._keys = columns[6]
        self.extensions = [_text(columns[7], ends[place], ends[place + 1]) for place in range(extensions)]
        self.end = max(map(int.__add__, self._offsets, self._sizes), default=0)

    @classmethod
    def of(cls, members: Iterable[Member]) -> ShardIndex:
        """Return the index of an archive with these members."""
        return cls(memoryview(_encode(_samples(members))))

    def __len__(self) -> int:
        return len(self._key_ends) - 1

    def key(self, sample: int) -> str:
        """Return a sample's basename."""
        return _text(self._keys, self._key_ends[sample], self._key_ends[sample + 1])

    def members(self, sample: int) -> list[tuple[str, int, int]]:
        """Return (extension, offset, size) of a sample's members, in the order of the archive."""
        places = range(self._firsts[sample], self._firsts[sample + 1])
        try:
            return [(self.extensions[self._extension_of[at]], self._offsets[at], self._sizes[at]) for at in places]
        except IndexError:
            raise ManifestError("an index of a shard's members is damaged: a member lies outside of it") from None

    def sizes(self) -> list[int]:
        """Return the bytes of each sample: the sum of its members'."""
        firsts, sizes = self._firsts, self._sizes
        return [sum(sizes[firsts[sample] : firsts[sample + 1]]) for sample in range(len(self))]


Samples = dict[tuple[str, str], dict[str, Member]]


def sample_name(name: str) -> tuple[str, str, str]:
    """Return the folder, the basename and the extension (the last one, "" for none) of a member's name."""
    folder, _, file = name.rpartition("/")
    return folder, file.split(".", 1)[0], file.rpartition(".")[2] if "." in file else ""


def _samples(members: Iterable[Member]) -> Samples:
    """Group members; two of one sample whose last extensions are equal (`a.png`, `a.seg.png`) go by all they have."""
    samples: Samples = {}
    for member in members:
        folder, basename, extension = sample_name(member.name)
        if extension:
            samples.setdefault((folder, basename), {})[member.name] = member  # twice in an archive: the last one counts
    for key, named in samples.items():
        last = [sample_name(name)[2] for name in named]
        samples[key] = {
            name.rpartition("/")[2].partition(".")[2] if last.count(short) > 1 else short: member
            for (name, member), short in zip(named.items(), last, strict=True)
        }
    return samples


def _encode(samples: Samples) -> bytes:
    keys = [basename.encode("utf-8", "surrogateescape") for _, basename in samples]
    extensions = {extension: 0 for sample in samples.values() for extension in sample}
    for place, extension in enumerate(extensions):
        extensions[extension] = place
    named = [extension.encode("utf-8", "surrogateescape") for extension in extensions]
    members = [(extensions[name], member) for sample in samples.values() for name, member in sample.items()]
    blob, names = b"".join(keys), b"".join(named)
    columns = [
        [member.offset for _, member in members],
        [member.size for _, member in members],
        _ends(map(len, samples.values())),
        _ends(map(len, keys)),
        _ends(map(len, named)),
        [place for place, _ in members],
    ]
    numbers = [number for column in columns for number in column]
    head = _HEAD.pack(len(samples), len(members), len(named), len(blob), len(names))
    return head + Struct(f"<{len(numbers)}Q").pack(*numbers) + blob + names


def _ends(lengths: Iterable[int]) -> list[int]:
    ends = [0]
    for length in lengths:
        ends.append(ends[-1] + length)
    return ends


def _text(blob: memoryview, start: int, end: int) -> str:
    if not start <= end <= len(blob):
        raise ManifestError("an index of a shard's members is damaged: a name lies outside of it")
    return bytes(blob[start:end]).decode("utf-8", "surrogateescape")
