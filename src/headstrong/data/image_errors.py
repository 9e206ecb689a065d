"""How damaged files of images and arrays are noticed: what Pillow's decoders and NumPy's readers raise, their own
exceptions and those that slip out, and the end of a file, at which a decoder does not look."""

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


# --- the end of a file ---------------------------------------------------------------------------------------------


def cut_short(data: bytes) -> str | None:
    """What is wrong with the end of an image file whose pixels can be decoded: Pillow stops reading at the last one,
    and what comes after it may be cut off. None: nothing, or another format than PNG, JPEG, WebP and BMP.

    data: the whole file.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_fault(data)
    # Within the pixels 0xff is followed by 0, so that both are what they look like.
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        return "truncated: the end-of-image marker is not there"
    sized = {b"RIFF": (4, 8), b"BM": (2, 0)}
    for magic, (start, before) in sized.items():
        said = int.from_bytes(data[start : start + 4], "little") + before
        if data.startswith(magic) and len(data) < said:
            return f"truncated: {len(data)} bytes, its header says {said}"
    return None


def _png_fault(data: bytes) -> str | None:
    """The first chunk that is cut off or whose checksum is not that of its bytes."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"damaged: wrong checksum in chunk {name.decode('latin-1')}"
        if name == b"IEND":
            return None
        at = end
    return "truncated: the last chunk, IEND, is not there"
