"""Whether a library's file is whole. Linux maps a truncated file without an error, and a signal then ends the process
at the first missing page, so this is checked before the file is loaded."""

from __future__ import annotations

import os
import struct
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")  # of a 64-bit file
_SEGMENT = struct.Struct("<IIQQQQQQ")
_MAGIC = b"\x7fELF\x02\x01"  # ELF, of 64 bits, the lowest byte first


def missing_bytes(path: Path) -> int:
    """How many bytes of its segments an ELF file lacks; 0 for a whole one and for a file of another kind, which the
    loader refuses by itself where it is broken."""
    size = os.stat(path).st_size
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if not head.startswith(_MAGIC):
            return 0
        if len(head) < _HEADER.size:
            return _HEADER.size - len(head)
        _, _, _, _, _, first, _, _, _, each, count, *_ = _HEADER.unpack(head)
        file.seek(first)
        table = file.read(each * count)
    end = first + each * count
    for at in range(0, len(table) - _SEGMENT.size + 1, each or _SEGMENT.size):
        _, _, offset, _, _, held, _, _ = _SEGMENT.unpack_from(table, at)
        end = max(end, offset + held)
    return max(0, end - size)
