"""A file system for fsspec: names by the mount, bytes of files that are read by the ring.

    fsspec.open("ff2:///mnt/ff2/data.parquet")

Each path is one of a mount, as programs see it. What is written goes the ordinary way.
"""

import errno
import os
import threading

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from ff2.ring import Ring, RingError

PROTOCOL = "ff2://"


class _Rings(threading.local):
    """A ring for each thread, process and mount."""

    def __init__(self):
        self.rings = {}

    def of(self, descriptor):
        key = (os.getpid(), os.fstat(descriptor).st_dev)
        ring = self.rings.get(key)
        if ring is None:
            ring = self.rings[key] = Ring(f"/proc/self/fd/{descriptor}")
        return ring

    def forget(self, descriptor):
        self.rings.pop((os.getpid(), os.fstat(descriptor).st_dev), None)


_RINGS = _Rings()


def _range(descriptor, start, end):
    buffer = bytearray(max(end - start, 0))
    try:
        count = _RINGS.of(descriptor).read_into(descriptor, buffer, start)
    except RingError as failure:
        if failure.errno != errno.EPIPE:
            raise
        # The mount was restarted since: once more, with a new ring.
        _RINGS.forget(descriptor)
        count = _RINGS.of(descriptor).read_into(descriptor, buffer, start)
    return bytes(memoryview(buffer)[:count])


class Ff2File(AbstractBufferedFile):
    """A file that is open for reading."""

    def __init__(self, fs, path, descriptor, **kwargs):
        self._descriptor = descriptor
        kwargs.setdefault("size", os.fstat(descriptor).st_size)
        super().__init__(fs, path, "rb", **kwargs)

    def fileno(self):
        return self._descriptor

    def _fetch_range(self, start, end):
        return _range(self._descriptor, start, end)

    def close(self):
        super().close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class Ff2FileSystem(LocalFileSystem):
    """Files of ff2 mounts on this host."""

    protocol = ("ff2",)

    @classmethod
    def _strip_protocol(cls, path):
        path = os.fspath(path) if not isinstance(path, (list, tuple)) else path
        if isinstance(path, str) and path.startswith(PROTOCOL):
            path = path[len(PROTOCOL) :]
        return super()._strip_protocol(path)

    def unstrip_protocol(self, name):
        return PROTOCOL + self._strip_protocol(name)

    def _open(self, path, mode="rb", block_size=None, **kwargs):
        if mode != "rb":
            return super()._open(path, mode, block_size=block_size, **kwargs)
        kwargs.pop("autocommit", None)
        kwargs.pop("compression", None)
        path = self._strip_protocol(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return Ff2File(self, path, descriptor, block_size=block_size or 4 << 20, **kwargs)

    def cat_file(self, path, start=None, end=None, **_):
        """The bytes of a file, or a part of them; negative places count from its end."""
        descriptor = os.open(self._strip_protocol(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            start, end, _ = slice(start, end).indices(size)
            return _range(descriptor, start, end)
        finally:
            os.close(descriptor)
