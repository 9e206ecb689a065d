"""Seeds: every random draw comes from the study's seed and the id of the thing."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the study's seed and the id of the thing: `derive_seed(0, "rooms", "train", 7)`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
