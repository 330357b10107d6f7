"""The user ring: reads and writes of open files in batches."""

import ctypes
import os
from collections import deque
from typing import NamedTuple

from ff2._library import Completed, Submission, library

READ, WRITE, FSYNC = 1, 2, 3
#: Priorities: high goes first, low is not held up for ever.
HIGH, LOW = 0, 1
#: Bytes of one operation, at most.
OPERATION_BYTES_MAX = 16 << 20
#: Bytes of the pieces that long reads are made of, and how many are in flight.
PIECE_BYTES = 4 << 20
PIECES = 8


class RingError(OSError):
    """A failure of a ring or of an operation, with its errno."""


class Completion(NamedTuple):
    """An operation that was carried out: bytes that moved, or a negative errno."""

    user_data: int
    result: int


def _check(outcome):
    if outcome < 0:
        raise RingError(-outcome, library().ff2_ring_error().decode())
    return outcome


def _descriptor(file):
    return file if isinstance(file, int) else file.fileno()


class Region:
    """Zeroed memory that operations read into and write from; made by ``Ring.region``.

    ``view`` is a writable memoryview of all of it. The memory lives as long as the region or anything
    that was made of the view, whatever becomes of the ring.
    """

    def __init__(self, pointer, nbytes):
        functions = library()
        self._pointer = pointer
        self.nbytes = nbytes
        self.number = functions.ff2_region_number(pointer)
        memory = (ctypes.c_uint8 * nbytes).from_address(functions.ff2_region_base(pointer))
        # Whoever has the memory has this, and so keeps it mapped.
        memory.owner = _Owner(pointer)
        self._memory = memory

    @property
    def view(self):
        return memoryview(self._memory).cast("B")


class _Owner:
    def __init__(self, pointer):
        self._pointer = pointer
        self._free = library().ff2_region_free

    def __del__(self):
        self._free(self._pointer)


class Ring:
    """A connection to the process that serves the mount on which ``path`` lies.

    A ring belongs to one thread at a time, and to the process that made it. It is a context manager.
    """

    # Until it is connected.
    _ring = None

    def __init__(self, path, entries=256):
        self._functions = library()
        pointer = ctypes.c_void_p()
        _check(self._functions.ff2_ring_connect(os.fsencode(path), entries, ctypes.byref(pointer)))
        self._ring = pointer
        # As many as a ring has that was rounded up.
        self._completed = (Completed * (1 << (entries - 1).bit_length()))()
        self._pieces = None
        self._process = os.getpid()

    def close(self):
        """The mount forgets the ring's files and regions. Regions stay memory of this process."""
        if self._ring and self._process == os.getpid():
            self._functions.ff2_ring_close(self._ring)
        self._ring = None

    __del__ = close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _open(self):
        if not self._ring:
            raise ValueError("the ring is closed: make another")
        if self._process != os.getpid():
            raise ValueError("the ring belongs to the parent process: make another after the fork")
        return self._ring

    def region(self, nbytes):
        """New memory for operations."""
        pointer = ctypes.c_void_p()
        _check(self._functions.ff2_ring_add_region(self._open(), nbytes, ctypes.byref(pointer)))
        return Region(pointer, nbytes)

    def remove_region(self, region):
        """The mount forgets a region, whose memory stays."""
        _check(self._functions.ff2_ring_remove_region(self._open(), region._pointer))

    def file(self, file):
        """Registers an open file (or descriptor) of the mount, which may be closed afterwards.

        Returns its number. The ring may do what the descriptor was opened for.
        """
        number = ctypes.c_uint32()
        _check(self._functions.ff2_ring_add_file(self._open(), _descriptor(file), ctypes.byref(number)))
        return number.value

    def remove_file(self, number):
        _check(self._functions.ff2_ring_remove_file(self._open(), number))

    def read(self, file, file_offset, region, region_offset, length, user_data=0, priority=HIGH):
        """Puts a read of ``length`` bytes (at most 16 MiB) into the next batch."""
        self._push(READ, file, file_offset, region, region_offset, length, user_data, priority)

    def write(self, file, file_offset, region, region_offset, length, user_data=0, priority=HIGH):
        """Puts a write into the next batch; the bytes must stay until its completion."""
        self._push(WRITE, file, file_offset, region, region_offset, length, user_data, priority)

    def fsync(self, file, user_data=0, priority=HIGH):
        """Puts an fsync, of what was complete before, into the next batch."""
        asked = Submission(op=FSYNC, priority=priority, file=file, user_data=user_data)
        _check(self._functions.ff2_ring_push(self._open(), ctypes.byref(asked)))

    def _push(self, op, file, file_offset, region, region_offset, length, user_data, priority):
        if min(file_offset, region_offset, length) < 0 or region_offset + length > region.nbytes:
            raise ValueError(f"no {length} bytes at {region_offset} of a region of {region.nbytes}")
        asked = Submission(
            op=op,
            priority=priority,
            file=file,
            region=region.number,
            region_offset=region_offset,
            file_offset=file_offset,
            length=length,
            user_data=user_data,
        )
        _check(self._functions.ff2_ring_push(self._open(), ctypes.byref(asked)))

    def submit(self):
        """Starts what was pushed."""
        self._functions.ff2_ring_submit(self._open())

    def reap(self, min=1, timeout=None):
        """Submits, waits for ``min`` completions or ``timeout`` seconds, and returns all there are."""
        wait_ms = -1 if timeout is None else int(timeout * 1000 + 0.999)
        room = len(self._completed)
        count = _check(
            self._functions.ff2_ring_reap(self._open(), self._completed, room, min, wait_ms)
        )
        return [Completion(done.user_data, done.result) for done in self._completed[:count]]

    def read_into(self, file, buffer, offset=0):
        """Fills a writable buffer (numpy array, bytearray, ...) from a file, many pieces in flight.

        Returns the bytes read: fewer than it has only at the end of the file. Nothing else may be
        outstanding on the ring.
        """
        view = memoryview(buffer)
        if view.readonly:
            raise ValueError("the buffer is read-only")
        if view.nbytes == 0:
            return 0
        view = view.cast("B")
        number = self.file(file)
        try:
            return self._read_pieces(number, view, offset)
        finally:
            self.remove_file(number)

    def _read_pieces(self, number, view, offset):
        if self._pieces is None:
            self._pieces = self.region(PIECES * PIECE_BYTES)
        staged = self._pieces.view
        pending = deque(range(0, view.nbytes, PIECE_BYTES))
        free, running, total = list(range(PIECES)), {}, 0
        while pending or running:
            while pending and free:
                slot, at = free.pop(), pending.popleft()
                length = min(PIECE_BYTES, view.nbytes - at)
                self.read(number, offset + at, self._pieces, slot * PIECE_BYTES, length, slot)
                running[slot] = at
            for slot, result in self.reap():
                at = running.pop(slot)
                free.append(slot)
                if result < 0:
                    self._settle(len(running))
                    raise RingError(-result, os.strerror(-result))
                start = slot * PIECE_BYTES
                view[at : at + result] = staged[start : start + result]
                total += result
        return total

    def _settle(self, count):
        """Lets operations come to their end, so that their memory can be used for others."""
        while count > 0:
            count -= len(self.reap(count))


def read_into(file, buffer, offset=0, ring=None):
    """Fills a writable buffer from an open file, by ``ring`` or by one of its own. See Ring.read_into."""
    if ring is not None:
        return ring.read_into(file, buffer, offset)
    with Ring(f"/proc/self/fd/{_descriptor(file)}") as own:
        return own.read_into(file, buffer, offset)
