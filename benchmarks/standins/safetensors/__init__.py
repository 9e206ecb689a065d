"""safetensors where the library is missing: what `headstrong.models.store` uses of it.

The format is 8 bytes with the length of a header, little-endian; the header, JSON padded with spaces to a multiple of
8; then the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# In the order of the library, which writes the last kinds first; within a kind, tensors go by name.
KINDS = (
    ("bool", "BOOL"), ("uint8", "U8"), ("int8", "I8"), ("int16", "I16"), ("uint16", "U16"), ("float16", "F16"),
    ("bfloat16", "BF16"), ("int32", "I32"), ("uint32", "U32"), ("float32", "F32"), ("float64", "F64"), ("int64", "I64"),
    ("uint64", "U64"),
)  # fmt: skip
_KIND = {code: kind for kind, code in KINDS}


class SafetensorError(Exception):
    """A file is not in the format."""


class safe_open:  # noqa: N801  (the library's name)
    """A file opened to read tensors from it: `with safe_open(path, framework="pt") as file`."""

    def __init__(self, path: str | Path, framework: str) -> None:
        if framework != "pt":
            raise ValueError(f"framework {framework!r}: the stand-in knows pt only")
        content = Path(path).read_bytes()
        length = int.from_bytes(content[:8], "little")
        try:
            header = json.loads(content[8 : 8 + length])
            self._metadata: dict[str, str] | None = header.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in header.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafetensorError(f"header: {error}") from None
        self._header, self._data = header, content[8 + length :]
        if max(ends, default=0) != len(self._data):
            raise SafetensorError(f"{len(self._data)} bytes of numbers, expected {max(ends, default=0)}")

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        self._data = b""

    def metadata(self) -> dict[str, str] | None:
        """Texts by name, or None."""
        return self._metadata

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return list(self._header)

    def get_tensor(self, name: str) -> Any:
        """The tensor of a name, on the CPU. Raises SafetensorError where there is none."""
        import torch

        if name not in self._header:
            raise SafetensorError(f"no tensor {name!r}")
        entry = self._header[name]
        start, end = entry["data_offsets"]
        kind = getattr(torch, _KIND[entry["dtype"]])
        if start == end:
            return torch.empty(entry["shape"], dtype=kind)
        return torch.frombuffer(bytearray(self._data[start:end]), dtype=kind).reshape(entry["shape"])
