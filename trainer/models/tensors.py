"""Named arrays in files of other frameworks: safetensors and NumPy's npz.

Nothing is unpickled. The safetensors reader is ours because the package's NumPy reader
knows no bfloat16; format: https://huggingface.co/docs/safetensors, "Format".
"""

import json
import math
import zipfile
from pathlib import Path

import numpy as np

from support.errors import usage_error

_BFLOAT16 = "BF16"
#: More than the parameters of any architecture here take; a file that unpacks to more
#: is refused before memory is taken for it.
MOST_BYTES = 1 << 30
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    _BFLOAT16: "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "U8": "|u1",
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a .safetensors or .npz file, bfloat16 as float32.

    Raises:
      UserError: another kind of file, or one that is cut or damaged (exit 2).
    """
    try:
        return READERS[path.suffix](path)
    except Exception as error:  # NumPy, zipfile, zlib and json raise a dozen kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise usage_error(
            f"{path} is no readable {path.suffix} file: {reason.rstrip('.')}.",
            "Write or download it again.",
        ) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        _check_size(sum(member.file_size for member in archive.infolist()))
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Reads 8 bytes of header length, little-endian, the header as JSON, the data."""
    _check_size(path.stat().st_size)
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError(f"its header ends at byte {start} of {len(content)}")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    data = memoryview(content)[start:]
    used = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if used != len(data):
        raise ValueError(f"it has {len(data)} bytes of data where {used} belong")
    return {name: _array(name, entry, data) for name, entry in header.items()}


def _check_size(unpacked: int) -> None:
    if unpacked > MOST_BYTES:
        raise ValueError(f"it holds {unpacked:,} bytes, more than {MOST_BYTES:,}")


def _array(name: str, entry: dict, data: memoryview) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} is of type {entry['dtype']}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    begin, end = entry["data_offsets"]
    wanted = math.prod(entry["shape"]) * dtype.itemsize
    if not 0 <= begin <= end <= len(data) or end - begin != wanted:
        raise ValueError(f"{name} lies at bytes {begin} to {end}, but has {wanted}")
    array = np.frombuffer(data[begin:end], dtype).reshape(entry["shape"])
    if entry["dtype"] == _BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
