"""On a mount: FF2_TEST_FOLDER is a folder of one that this user may write."""

import gc
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy
import pytest

import ff2
import ff2.safetensors as safetensors

FOLDER = Path(os.environ["FF2_TEST_FOLDER"])


@pytest.fixture
def ring():
    with ff2.Ring(FOLDER) as ring:
        yield ring


def noise(count, seed=1):
    return numpy.random.default_rng(seed).integers(0, 256, count, dtype="uint8")


def test_the_ring_reads_and_writes_what_the_mount_does(ring):
    path = FOLDER / "plain"
    data = noise(1_000_000)
    path.write_bytes(data.tobytes())
    region = ring.region(1 << 20)
    with open(path, "r+b") as file:
        number = ring.file(file)
    for piece in range(10):
        priority = ff2.LOW if piece % 2 else ff2.HIGH
        ring.read(number, piece * 100_000, region, piece * 100_000, 100_000, piece, priority)
    done = ring.reap(10)
    assert sorted(done) == [(piece, 100_000) for piece in range(10)]
    assert (numpy.frombuffer(region.view, "uint8", 1_000_000) == data).all()
    region.view[:5] = b"first"
    ring.write(number, 10, region, 0, 5, 77)
    assert ring.reap() == [(77, 5)]
    ring.fsync(number, 78)
    assert ring.reap() == [(78, 0)]
    assert path.read_bytes()[8:17] == data[8:10].tobytes() + b"first" + data[15:17].tobytes()
    with ff2.Ring(FOLDER, entries=3) as small:
        with open(path, "rb") as file:
            number = small.file(file)
        for _ in range(4):
            small.fsync(number)
        with pytest.raises(ff2.RingError, match="full"):
            small.fsync(number)
        assert len(small.reap(4)) == 4
    assert ring.reap(1, timeout=5) == [], "nothing is outstanding, so nothing is waited for"


@pytest.mark.parametrize("length", [1, 4096, 4 << 20, (40 << 20) + 17])
def test_buffers_are_filled(ring, length):
    data = noise(length)
    path = FOLDER / "buffer"
    path.write_bytes(data.tobytes())
    found = numpy.zeros(length + 10, "uint8")
    with open(path, "rb") as file:
        assert ring.read_into(file, found) == length
        assert (found[:length] == data).all() and not found[length:].any()
        part = bytearray(min(length, 1000))
        assert ff2.read_into(file, part, offset=length - len(part)) == len(part)
        assert part == data[length - len(part) :].tobytes()
        assert ring.read_into(file, bytearray(5), offset=length) == 0
        assert ring.read_into(file, bytearray()) == 0
        with pytest.raises(ValueError, match="read-only"):
            ring.read_into(file, b"constant")
    floats = numpy.arange(1000, dtype="float32").reshape(10, 100)
    floats.tofile(path)
    again = numpy.empty_like(floats)
    with open(path, "rb") as file:
        assert ff2.read_into(file, again) == again.nbytes
    assert (again == floats).all()


def test_misuse_is_told(ring, tmp_path):
    with pytest.raises(ff2.RingError, match="use a path on the mount"):
        ff2.Ring(tmp_path)
    (tmp_path / "other").write_bytes(b"x")
    with open(tmp_path / "other", "rb") as other, pytest.raises(ff2.RingError, match="its own mount"):
        ring.file(other)
    (FOLDER / "f").write_bytes(b"x" * 100)
    region = ring.region(4096)
    with open(FOLDER / "f", "rb") as file:
        number = ring.file(file)
        for wrong in [(-1, 0, 10), (0, -1, 10), (0, 4000, 97), (0, 0, -1)]:
            at, region_at, length = wrong
            with pytest.raises(ValueError):
                ring.read(number, at, region, region_at, length)
        ring.write(number, 0, region, 0, 10)
        assert ring.reap()[0].result == -9, "it was opened for reading"
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.region(4096)
    region.view[:4] = b"ours"


def test_a_child_does_not_use_its_parents_ring(ring):
    child = os.fork()
    if child == 0:
        try:
            ring.region(4096)
            os._exit(1)
        except ValueError:
            del ring
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ring.region(4096)


def test_memory_lives_as_long_as_its_arrays():
    (FOLDER / "f").write_bytes(noise(1 << 20).tobytes())
    with ff2.Ring(FOLDER) as ring, open(FOLDER / "f", "rb") as file:
        region = ring.region(1 << 20)
        ring.read(ring.file(file), 0, region, 0, 1 << 20)
        assert ring.reap()[0].result == 1 << 20
    array = numpy.frombuffer(region.view, "uint8")[5:]
    del region, ring
    gc.collect()
    assert (array == noise(1 << 20)[5:]).all()

    def mappings():
        return Path("/proc/self/maps").read_text().count("ff2-region")

    before = mappings()
    del array
    gc.collect()
    assert mappings() < before, "the memory is given back"


def checkpoint(tensors, path):
    """As the format's own library writes it."""
    import ml_dtypes  # noqa: F401  registers bfloat16
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata={"format": "pt"})


def test_checkpoints_are_what_the_formats_own_library_says():
    import ml_dtypes

    rng = numpy.random.default_rng(3)
    tensors = {
        "embed": rng.standard_normal((1000, 1024), "float32"),
        "half": rng.standard_normal((333, 77)).astype("float16"),
        "brain": rng.standard_normal((1024, 1025)).astype(ml_dtypes.bfloat16),
        "long": rng.integers(-(2**60), 2**60, (3, 5, 7)),
        "bytes": noise(1234567),
        "flags": rng.integers(0, 2, 99).astype("bool"),
        "scalar": numpy.array(2.5, "float64"),
        "empty": numpy.zeros((0, 4), "float32"),
    }
    path = FOLDER / "model.safetensors"
    checkpoint(tensors, path)
    with ff2.Ring(FOLDER) as ring:
        for loaded in (safetensors.load(path), safetensors.load(path, ring=ring)):
            assert loaded.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
                assert loaded[name].tobytes() == tensor.tobytes(), name
    loaded["embed"][0, 0] = 7
    assert loaded["embed"][0, 0] == 7, "tensors can be changed, as those of others"


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    import ml_dtypes

    values = numpy.arange(4096).astype(ml_dtypes.bfloat16).reshape(64, 64)
    checkpoint({"w": values, "v": numpy.ones(3, "float32")}, FOLDER / "torch.safetensors")
    loaded = safetensors.load(FOLDER / "torch.safetensors", framework="torch")
    assert loaded["w"].dtype == torch.bfloat16
    assert (loaded["w"].float().numpy() == values.astype("float32")).all()


def write_header(header, data=b"", length=None):
    path = FOLDER / "broken.safetensors"
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize(
    "parts",
    [
        ({}, b"", 1 << 62),
        ({}, b"", 500),
        (b"no json",),
        (b"[]",),
        (b'{"a": 5}',),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"123"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, b""),
        ({"a": {"dtype": "F12", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    ],
)
def test_what_is_no_checkpoint_is_refused(parts):
    with pytest.raises(ValueError):
        safetensors.load(write_header(*parts))


def test_files_that_are_too_short_are_refused():
    for content in (b"", b"1234567", struct.pack("<Q", 2)):
        (FOLDER / "short.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="header"):
            safetensors.load(FOLDER / "short.safetensors")


def test_fsspec():
    fs = fsspec.filesystem("ff2")
    base = f"ff2://{FOLDER}/tree"
    fs.makedirs(base, exist_ok=True)
    data = noise(10_000_000).tobytes()
    with fsspec.open(f"{base}/f", "wb") as file:
        file.write(data)
    with fsspec.open(f"{base}/f", "rb") as file:
        assert file.read(10) == data[:10]
        file.seek(-1000, 2)
        assert file.read() == data[-1000:]
        file.seek(5_000_000)
        assert file.read(4_500_000) == data[5_000_000:9_500_000]
    assert fs.cat_file(f"{base}/f") == data
    assert fs.cat_file(f"{base}/f", 100, 200) == data[100:200]
    assert fs.cat_file(f"{base}/f", -100) == data[-100:]
    assert fs.cat_file(f"{base}/f", 20, 10) == b""
    ranges = fs.cat_ranges([f"{base}/f"] * 3, [0, 5, 9_999_999], [3, 6, 10_000_000])
    assert ranges == [data[:3], data[5:6], data[-1:]]
    with fsspec.open(f"{base}/text", "w") as file:
        file.write("one\ntwo\n")
    with fsspec.open(f"{base}/text", "r") as file:
        assert file.readlines() == ["one\n", "two\n"]
    assert sorted(Path(name).name for name in fs.ls(base, detail=False)) == ["f", "text"]
    assert fs.info(f"{base}/f")["size"] == len(data)
    fs.mv(f"{base}/text", f"{base}/moved")
    assert fs.exists(f"{base}/moved") and not fs.exists(f"{base}/text")
    fs.rm(base, recursive=True)
    assert not fs.exists(base)
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{base}/f")
    with pytest.raises(FileNotFoundError):
        fs.open(f"{base}/f")


def test_numpy_is_not_needed_to_read():
    """Nor anything else that is not Python's own."""
    (FOLDER / "f").write_bytes(b"bytes")
    program = (
        "import sys\n"
        "for name in ('numpy', 'fsspec', 'torch'): sys.modules[name] = None\n"
        "import ff2, ff2.safetensors\n"
        "buffer = bytearray(5)\n"
        f"assert ff2.read_into(open({str(FOLDER / 'f')!r}, 'rb'), buffer) == 5\n"
        "assert buffer == b'bytes'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
