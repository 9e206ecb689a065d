"""Labels as Taskonomy's renderer makes them (Zamir et al. 2018), from a picture, a depth image or normals.

The renderer is public (the scripts of omnidata-annotator, Eftekhar et al. 2021, with the settings of the Taskonomy
scans). Checked against its images at 512 pixels by `benchmarks/label_accuracy.py`; the agreement is in docs/data.md.

Every function is pure; shapes are (H, W) or (C, H, W).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cameras import Floats, Intrinsics, rays
from headstrong.tasks import CURVATURE_RADIUS

Depth = NDArray[np.floating[Any]]

LAMP = 1.6  # energy of the lamp, 2.5, times the diffuse reflection of the white material, 0.8 * 0.8
LAMP_AREA = 8.0  # m^2: at the square root of it, 2.8 m, the lamp has lost half of its strength


# --- shading and curvature -----------------------------------------------------------------------------------------


def reshading(normal: NDArray[np.floating[Any]], distance: Depth, intrinsics: Intrinsics) -> Floats:
    """White surfaces lit by a lamp at the camera: 1.6 cos(a) 8 / (8 + D^2), cut off at 1; 0 where D is 0.

    Parameters
    ----------
    normal : (3, H, W), unit vectors in camera axes; a is the angle to the line of sight.
    distance : (H, W), D, Euclidean distance to the camera in metres, 0 where it is not known.
    intrinsics : of the image.

    Returns
    -------
    (H, W) in [0, 1]. The falloff is Blender's "inverse square" with a distance setting of 8.
    """
    ray = rays((normal.shape[1], normal.shape[2]), intrinsics)
    cosine = -(normal * ray).sum(axis=0) / np.sqrt((ray * ray).sum(axis=0))
    far = np.asarray(distance, dtype=np.float64)
    return np.where(far > 0, np.clip(LAMP * cosine * LAMP_AREA / (LAMP_AREA + far * far), 0, 1), 0)


def by_magnitude(curvature: NDArray[np.floating[Any]]) -> Floats:
    """Principal curvatures (2, ...) in 1/m, the one of larger magnitude first, cut off at a radius of 0.03 m."""
    first, second = np.clip(np.asarray(curvature, dtype=np.float64), -1 / CURVATURE_RADIUS, 1 / CURVATURE_RADIUS)
    swap = np.abs(second) > np.abs(first)
    return np.stack([np.where(swap, second, first), np.where(swap, first, second)])
