"""Labels as Taskonomy's renderer makes them (Zamir et al. 2018), from a picture, a depth image or normals.

The renderer is public (the scripts of omnidata-annotator, Eftekhar et al. 2021, with the settings of the Taskonomy
scans). Checked against its images at 512 pixels by `benchmarks/label_accuracy.py`; the agreement is in docs/data.md.

It works on images of 512 x 512 pixels, and so do its filters. A smaller picture is brought to 512 pixels on its shorter
side first and the label is brought back by the nearest pixel, as the reader of Taskonomy does with the real ones; a
larger one is taken as it is. Every function is pure; shapes are (H, W) or (C, H, W).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cameras import Floats, Intrinsics, rays
from headstrong.tasks import CURVATURE_RADIUS, depth_is_valid

Depth = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]

RESOLUTION = 512  # pixels of the renderer's images

LAMP = 1.6  # energy of the lamp, 2.5, times the diffuse reflection of the white material, 0.8 * 0.8
LAMP_AREA = 8.0  # m^2: at the square root of it, 2.8 m, the lamp has lost half of its strength

EDGE_BLUR = 3.0  # pixels, standard deviation
DEEPEST = 128.0  # metres: full scale of the depth images

BLOB_SIZES = (3, 12, 22, 32, 41, 51, 61, 70, 80, 90)  # pixels: three times 1 to 30 in ten equal steps, cut off
MIXED_WEIGHT = 0.81  # of the mixed derivative, for what boxes make of Gaussians (Bay et al. 2006)


def nearest(length: int, wanted: int) -> Rows:
    """The `wanted` of `length` pixels in a row that stand for it when it is resized: the middle ones, mixing none."""
    return np.minimum((np.arange(wanted) * length + length // 2) // wanted, length - 1)


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


# --- picture and depth ---------------------------------------------------------------------------------------------


def texture_edges(rgb: NDArray[np.uint8]) -> Floats:
    """Texture edges (H, W) in [0, 1]: gradient of the blurred luminance per pixel of the renderer's image.

    Canny's detector without its suppression of what is not a maximum: a Gaussian of 3 pixels, then Sobel's masks.
    rgb: (3, H, W). About 0.08 is a clear edge.
    """
    from scipy.ndimage import gaussian_filter, gaussian_filter1d

    light, rows, columns = _as_rendered(rgb)
    down, across = (gaussian_filter1d(np.ones(length), EDGE_BLUR, mode="constant") for length in light.shape)
    blurred = gaussian_filter(light, EDGE_BLUR, mode="constant") / (down[:, None] * across)  # nothing beyond the border
    return _gradient(blurred, rows, columns)


def keypoints_2d(rgb: NDArray[np.uint8]) -> Floats:
    """2D keypoints (H, W), non-negative: the determinant of the Hessian of the luminance by SURF's box filters (Bay et
    al. 2006), the largest over ten scales, before the suppression of what is not a maximum.

    rgb: (3, H, W). About 0.005 is a strong response. Boxes of a size that is no multiple of three are not balanced, so
    bright surfaces without any texture answer with up to 0.0014, in the renderer's images as well.
    """
    light, rows, columns = _as_rendered(rgb)
    sums = light.cumsum(axis=0).cumsum(axis=1)
    best = np.zeros((len(rows), len(columns)))
    for size in BLOB_SIZES:
        np.maximum(best, _determinant(sums, rows, columns, size), out=best)
    return best


def _determinant(sums: Floats, rows: Rows, columns: Rows, size: int) -> Floats:
    """Determinant of the Hessian at rows x columns, by boxes of `size`, from the running sums of an image."""
    lobe, reach = size // 3, (size - 1) // 2
    last_row, last_column = sums.shape[0] - 1, sums.shape[1] - 1

    def total(down: int, right: int, height: int, width: int) -> Floats:
        """Sum of the box whose corner is so far from each pixel, as much of it as is in the image."""
        top, left = np.clip(rows + down, 0, last_row), np.clip(columns + right, 0, last_column)
        band = sums[np.minimum(top + height, last_row)] - sums[top]
        box: Floats = band[:, np.minimum(left + width, last_column)] - band[:, left]
        return box

    broad = 2 * lobe - 1
    across = total(1 - lobe, -reach, broad, size) - 3 * total(1 - lobe, -(lobe // 2), broad, lobe)
    down = total(-reach, 1 - lobe, size, broad) - 3 * total(-(lobe // 2), 1 - lobe, lobe, broad)
    mixed = (
        total(1, -lobe, lobe, lobe) + total(-lobe, 1, lobe, lobe)
        - total(-lobe, -lobe, lobe, lobe) - total(1, 1, lobe, lobe)
    )  # fmt: skip
    return (across * down - MIXED_WEIGHT * mixed * mixed) / size**4


def occlusion_edges(depth_z: Depth) -> Floats:
    """Occlusion edges (H, W) in [0, 1]: gradient of the square root of depth per pixel of the renderer's image.

    depth_z: (H, W), metres, 0 where there is a hole; full scale is 128 m. A step from 2 m to 3 m is 0.02 in an image of
    512 pixels. Images of another size are not brought to 512 pixels, which would blur the edges: their gradient is
    divided instead, which keeps the slope of a surface and what an edge adds up to across its width.
    """
    from scipy.ndimage import binary_erosion

    known = depth_is_valid(depth_z)
    root = np.sqrt(np.where(known, depth_z, 0).astype(np.float64) / DEEPEST)
    gradient = _gradient(root, *(np.arange(length) for length in known.shape))
    return np.where(binary_erosion(known, np.ones((3, 3))), gradient, 0) * min(1.0, min(known.shape) / RESOLUTION)


def _gradient(image: Floats, rows: Rows, columns: Rows) -> Floats:
    """Length of the gradient at rows x columns by Sobel's masks, as scikit-image scales it: sqrt(2) for a slope of 1
    along one axis. 0 on the border of the image."""
    last_row, last_column = image.shape[0] - 1, image.shape[1] - 1
    above, below = image[np.maximum(rows - 1, 0)], image[np.minimum(rows + 1, last_row)]
    left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, last_column)
    smooth, step = above + 2 * image[rows] + below, below - above
    across, down = smooth[:, right] - smooth[:, left], step[:, left] + 2 * step[:, columns] + step[:, right]
    inner = ((rows > 0) & (rows < last_row))[:, None] & (columns > 0) & (columns < last_column)
    return np.where(inner, np.hypot(across, down) / (4 * np.sqrt(2)), 0)


def _as_rendered(rgb: NDArray[np.uint8]) -> tuple[Floats, Rows, Rows]:
    """Luminance in [0, 1] at the renderer's size, and the rows and columns of it that the pixels of `rgb` stand for."""
    light = luminance(rgb) / 255.0
    height, width = light.shape
    factor = max(1.0, RESOLUTION / min(height, width))
    tall, wide = round(factor * height), round(factor * width)
    if factor > 1:
        light = enlarged(enlarged(light, tall).T, wide).T
    return light, nearest(tall, height), nearest(wide, width)


def luminance(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance (H, W), 0..255, of a picture (3, H, W): ITU-R BT.601 in 16 bits, the bytes of Pillow's mode L."""
    red, green, blue = rgb.astype(np.uint32)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(np.uint8)


def enlarged(image: Floats, rows: int) -> Floats:
    """An image (H, W) brought to at least as many rows (rows, W) by Keys' cubic with a = -1/2.

    Weights of pixels beyond the border are dropped and the others scaled to sum 1, as Pillow does it.
    """
    length = image.shape[0]
    at = (np.arange(rows) + 0.5) * length / rows - 0.5
    taps = np.floor(at).astype(int) + np.arange(-1, 3)[:, None]
    far = np.abs(at - taps)
    near = (1.5 * far - 2.5) * far**2 + 1
    weights = np.where(far < 1, near, ((-0.5 * far + 2.5) * far - 4) * far + 2)
    weights = np.where((taps >= 0) & (taps < length), weights, 0)
    weights /= weights.sum(axis=0)
    pixels = image[taps.clip(0, length - 1)]
    # One pixel after the other: a product of matrices is rounded otherwise on another processor.
    return sum(weight[:, None] * pixel for weight, pixel in zip(weights, pixels, strict=True))
