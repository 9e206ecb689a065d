"""What Pillow's decoders and NumPy's readers raise on damaged files, their own exceptions and those that slip out."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
