"""Finds the C library and tells ctypes its functions (client/ring/include/ff2_ring.h)."""

import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path

NAME = "libff2_ring.so"
VERSION = 1


class Submission(ctypes.Structure):
    _fields_ = [
        ("op", c_uint8),
        ("priority", c_uint8),
        ("reserved", c_uint16),
        ("file", c_uint32),
        ("region", c_uint32),
        ("reserved_2", c_uint32),
        ("region_offset", c_uint64),
        ("file_offset", c_uint64),
        ("length", c_uint64),
        ("user_data", c_uint64),
    ]


class Completed(ctypes.Structure):
    _fields_ = [("user_data", c_uint64), ("result", c_int64)]


FUNCTIONS = {
    "ff2_ring_version": (c_uint32,),
    "ff2_ring_error": (c_char_p,),
    "ff2_ring_connect": (c_int, c_char_p, c_uint32, POINTER(c_void_p)),
    "ff2_ring_close": (None, c_void_p),
    "ff2_ring_add_region": (c_int, c_void_p, c_size_t, POINTER(c_void_p)),
    "ff2_ring_remove_region": (c_int, c_void_p, c_void_p),
    "ff2_region_base": (c_void_p, c_void_p),
    "ff2_region_number": (c_uint32, c_void_p),
    "ff2_region_free": (None, c_void_p),
    "ff2_ring_add_file": (c_int, c_void_p, c_int, POINTER(c_uint32)),
    "ff2_ring_remove_file": (c_int, c_void_p, c_uint32),
    "ff2_ring_push": (c_int, c_void_p, POINTER(Submission)),
    "ff2_ring_submit": (None, c_void_p),
    "ff2_ring_reap": (c_int, c_void_p, POINTER(Completed), c_uint32, c_uint32, c_int64),
}


def candidates():
    """Where the library may lie, first choice first."""
    if "FF2_RING_LIB" in os.environ:
        yield os.environ["FF2_RING_LIB"]
        return
    here = Path(__file__).resolve().parent
    yield str(here / NAME)
    for folder in here.parents:
        yield str(folder / "target" / "release" / NAME)
        yield str(folder / "target" / "debug" / NAME)
    # Where the system's linker looks.
    yield NAME


@functools.cache
def library():
    """The library. Raises ImportError, with advice, where there is none that fits."""
    for path in candidates():
        if os.sep in path and not os.path.exists(path):
            continue
        try:
            found = ctypes.CDLL(path, use_errno=False)
        except OSError:
            continue
        for name, (result, *arguments) in FUNCTIONS.items():
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
        if found.ff2_ring_version() != VERSION:
            raise ImportError(f"{path} is of another release of ff2: install both from one release")
        return found
    raise ImportError(f"{NAME} is not found: build ff2 (`cargo build`), or set FF2_RING_LIB to its path")
