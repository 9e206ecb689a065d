"""Data sets: the embedded ones that are ray-cast, the real ones, the labels derived for them, and the cache."""
