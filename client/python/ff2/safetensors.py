"""Reads safetensors checkpoints by the ring: all of a file in parallel, straight into the tensors."""

import json
import math
import os
import struct

from ff2.ring import OPERATION_BYTES_MAX, PIECE_BYTES, Ring, RingError

#: What the format allows a header to have.
HEADER_BYTES_MAX = 100_000_000
#: Reads in flight: enough to keep servers busy, and their memory bounded.
READS = 16

NUMPY = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16",
    "U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64",
    "F16": "float16", "F32": "float32", "F64": "float64",
}  # fmt: skip
#: NumPy has them by the package ml_dtypes.
ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
TORCH = {
    **NUMPY,
    **ML_DTYPES,
}
ITEM_BYTES = {"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "BF16": 2} | {
    name: int(name[1:]) // 8 for name in NUMPY if name != "BOOL"
}


def load(path, framework="numpy", ring=None):
    """The tensors of a file, by name, as NumPy arrays or (``framework="torch"``) PyTorch tensors.

    All of them are views of one block of memory, into which the mount's process put the bytes; it
    lives as long as one of them. ``ring``: use this one instead of one of its own. Raises ValueError
    for a file that is not well formed.
    """
    make = {"numpy": _numpy, "torch": _torch}.get(framework)
    if make is None:
        raise ValueError(f"framework is numpy or torch, not {framework!r}")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tensors, start, end = header(descriptor)
        if ring is not None:
            memory = _read(ring, descriptor, start, end)
        else:
            with Ring(path) as own:
                memory = _read(own, descriptor, start, end)
    finally:
        os.close(descriptor)
    return {name: make(memory, *tensor) for name, tensor in tensors.items()}


def header(descriptor):
    """``{name: (dtype, shape, first byte)}``, and where in the file the data begins and ends."""
    size = os.fstat(descriptor).st_size
    length_bytes = os.pread(descriptor, 8, 0)
    length = struct.unpack("<Q", length_bytes)[0] if len(length_bytes) == 8 else HEADER_BYTES_MAX + 1
    if length > min(HEADER_BYTES_MAX, size - 8):
        raise ValueError("no safetensors file: its header does not fit into it")
    text = os.pread(descriptor, length, 8)
    try:
        entries = json.loads(text)
        start, tensors, at = 8 + length, {}, 0
        entries.pop("__metadata__", None)
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            if dtype not in ITEM_BYTES:
                raise ValueError(f"tensor {name} has the type {dtype}, which this loader does not know")
            if begin != at or end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
                raise ValueError(f"no safetensors file: the place of tensor {name} does not fit")
            tensors[name], at = (dtype, shape, begin), end
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"no safetensors file: its header cannot be read ({problem})") from problem
    if start + at != size:
        raise ValueError(f"the file has {size} bytes, its header speaks of {start + at}")
    return tensors, start, start + at


def _read(ring, descriptor, start, end):
    """The bytes of a file as memory, whose first is that at ``start``."""
    if start == end:
        return memoryview(bytearray())
    region = ring.region(end - start)
    number = ring.file(descriptor)
    # Borders at multiples of the piece in the file: a piece then lies in few chunks.
    pieces = _pieces(start, end)
    running, failure = 0, None
    try:
        while running or (failure is None and pieces is not None):
            while running < READS and failure is None and pieces is not None:
                piece = next(pieces, None)
                if piece is None:
                    pieces = None
                    break
                at, length = piece
                ring.read(number, at, region, at - start, length, length)
                running += 1
            for length, result in ring.reap() if running else ():
                running -= 1
                if result < 0:
                    failure = RingError(-result, os.strerror(-result))
                elif result < length:
                    failure = ValueError("the file was cut while it was read")
    finally:
        ring.remove_file(number)
        ring.remove_region(region)
    if failure is not None:
        raise failure
    return region.view


def _pieces(start, end):
    at = start
    while at < end:
        border = min((at // PIECE_BYTES + 1) * PIECE_BYTES, end)
        yield at, border - at
        at = border


def _numpy(memory, dtype, shape, begin):
    import numpy

    if dtype in ML_DTYPES:
        try:
            import ml_dtypes
        except ImportError as missing:
            raise ImportError(f"NumPy needs ml_dtypes for {dtype}: pip install ml_dtypes") from missing
        kind = numpy.dtype(getattr(ml_dtypes, ML_DTYPES[dtype]))
    else:
        kind = numpy.dtype(NUMPY[dtype])
    count = math.prod(shape)
    if count == 0:
        return numpy.empty(shape, kind)
    return numpy.frombuffer(memory, kind, count, begin).reshape(shape)


def _torch(memory, dtype, shape, begin):
    import torch

    kind = getattr(torch, TORCH[dtype])
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(memory, dtype=kind, count=count, offset=begin).reshape(shape)


assert PIECE_BYTES <= OPERATION_BYTES_MAX
