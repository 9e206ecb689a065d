"""Tensors as the bytes of a file of safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import KINDS

_RANK, _CODE = {kind: rank for rank, (kind, _) in enumerate(KINDS)}, dict(KINDS)


def save(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file of these tensors, contiguous and on the CPU: the library's."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    parts, end = [], 0
    for name in sorted(tensors, key=lambda name: (-_RANK[_kind(tensors[name])], name)):
        part = _bytes_of(tensors[name])
        shape, start, end = list(tensors[name].shape), end, end + len(part)
        header[name] = {"dtype": _CODE[_kind(tensors[name])], "shape": shape, "data_offsets": [start, end]}
        parts.append(part)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _kind(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bytes_of(tensor: Any) -> bytes:
    import torch

    flat = tensor.reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""
