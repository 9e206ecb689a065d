"""scipy where it is missing: see `ndimage`."""

__version__ = "0"
