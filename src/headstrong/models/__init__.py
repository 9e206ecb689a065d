"""Networks: encoders, decoders, the multi-task model made of them, and models on disk."""

from headstrong.layouts import BRANCHED
from headstrong.models.encoders import ENCODERS
from headstrong.models.multitask import (
    SEGNETS,
    MultiTaskModel,
    build_model,
    initialise,
    output_channels,
    use_channels_last,
)
from headstrong.models.store import load_metadata, load_model, save_model

__all__ = [
    "BRANCHED",
    "ENCODERS",
    "SEGNETS",
    "MultiTaskModel",
    "build_model",
    "initialise",
    "load_metadata",
    "load_model",
    "output_channels",
    "save_model",
    "use_channels_last",
]
