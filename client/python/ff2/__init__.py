"""ff2 from Python.

Open files on an ff2 mount as ever; read and write them by a ring, without the kernel's page cache and
with many operations in flight:

    with ff2.Ring("/mnt/ff2") as ring, open("/mnt/ff2/data", "rb") as file:
        ring.read_into(file, array)          # any writable buffer: numpy, bytearray, ...

``ff2.safetensors.load`` reads a checkpoint in parallel straight into tensors; ``ff2.fsspec`` is a
file system for ``fsspec`` (``ff2:///mnt/ff2/...``). NumPy is needed where arrays are returned only.
"""

from ff2.ring import HIGH, LOW, Completion, Region, Ring, RingError, read_into

__all__ = ["HIGH", "LOW", "Completion", "Region", "Ring", "RingError", "read_into"]
