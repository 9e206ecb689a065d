"""Labels derived from colour and depth: what a photograph with a range image says about every task but segmentation.

Pure functions of arrays and intrinsics, used for `rooms` and for real photographs alike. Camera axes: x right, y down,
z forward; depth is z depth in metres, 0 where there is none.

A plane has an inverse depth that is affine in the pixel coordinates. So normals are those of planes that are fitted to
inverse depth w = 1/z. What Taskonomy's renderer makes of a picture, a depth or normals is in `renderings`.

`noise` is the standard deviation of depth in metres (a quantisation step q counts q / sqrt(12)); 0 says that the depth
is exact. `depth_noise` estimates it, also from the steps of quantised depth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstrong.data.cameras import Floats, Intrinsics, euclidean, points, rays
from headstrong.data.renderings import by_magnitude, keypoints_2d, occlusion_edges, reshading, texture_edges
from headstrong.tasks import depth_is_valid

__all__ = [
    "Intrinsics",
    "curvatures",
    "depth_noise",
    "derive",
    "euclidean",
    "keypoints_3d",
    "normals",
    "points",
    "rays",
]

Depth = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SLOPE_ERROR = 0.08  # aimed at in normals of noisy depth: tangent of the angle
NOISE_CORRELATION = 3.0  # steps of quantised depth repeat over neighbours: so many pixels count as one
LARGEST_RADIUS = 16
MESH_SCALE = 0.01  # metres: standard deviation of the window over which curvatures are averaged
KEYPOINT_RADIUS = 0.15  # metres around a 3D keypoint, half of the support size of Taskonomy's NARF
CHANGE_SCALE = 0.12  # of that radius: standard deviation of the window in which normals are compared
INTEREST_SCALE = 0.45  # of that radius: the same for the window in which changes are compared
LEAST_CHANGE = 0.1  # smaller deviations of normals are noise
INTEREST_GAIN = 1.5  # gives the mean of the renderer's images
NARROWEST = 0.5  # pixels
CENTRED = 0.2  # weight of the residual of the window around the pixel itself: others must explain much better


def derive(raw: dict[str, Any], intrinsics: Intrinsics, noise: float | None = None) -> dict[str, Any]:
    """Fill in what a raw sample lacks. It must have rgb uint8 (3, H, W) and d (H, W) metres.

    `noise`: of the depth, metres; None estimates it. Labels that are there are kept and used: exact normals give exact
    reshading. Returns a new dict with d, D, n, p, k, K, e, E, r; shapes, types and ranges as in DESIGN (raw labels).
    """
    made = dict(raw)
    made["d"] = np.where(depth_is_valid(raw["d"]), raw["d"], 0).astype(np.float32)
    depth = made["d"].astype(np.float64)
    sigma = depth_noise(depth, intrinsics) if noise is None else noise
    recipes = {
        "D": lambda: euclidean(depth, intrinsics),
        "n": lambda: normals(depth, intrinsics, sigma),
        "p": lambda: curvatures(depth, made["n"], intrinsics, sigma),
        "K": lambda: keypoints_3d(depth, intrinsics, made["n"]),
        "E": lambda: occlusion_edges(depth),
        "r": lambda: reshading(made["n"], made["D"], intrinsics),
        "e": lambda: texture_edges(made["rgb"]),
        "k": lambda: keypoints_2d(made["rgb"]),
    }
    for letter, recipe in recipes.items():
        if letter not in made:
            made[letter] = recipe().astype(np.float32)
    return made


# --- surfaces ------------------------------------------------------------------------------------------------------


def normals(depth_z: Depth, intrinsics: Intrinsics, noise: float = 0.0) -> Floats:
    """Unit normals (3, H, W), facing the camera; (0, 0, -1) where the depth has a hole.

    Sloped facets (Haralick and Watson 1981) on inverse depth: planes are fitted in windows, and each pixel takes, of
    the nine windows that reach it, the one that fits best, so that no fit crosses an edge. The window grows with
    `noise`, more so near the camera, where a pixel covers less.
    """
    w, valid = _inverse(depth_z)
    radii = _radii(w, valid, intrinsics, noise)
    slopes = np.zeros((2, *w.shape))
    value = w.copy()
    for radius in np.unique(radii[valid]):
        here = radii == radius
        fit = _facets(w, valid, int(radius), noise)
        slopes[:, here], value[here] = fit[:2, here], fit[2, here]
    ray = rays(w.shape, intrinsics)
    a, b = slopes[0] * intrinsics.fx, slopes[1] * intrinsics.fy
    normal = -np.stack([a, b, value - a * ray[0] - b * ray[1]])
    normal[:, ~valid] = np.array([0.0, 0.0, -1.0])[:, None]
    normal /= np.sqrt((normal * normal).sum(axis=0))
    return _facing(normal, ray)


def _facing(normal: Floats, ray: Floats) -> Floats:
    """Normals that a fit has turned away from the camera, brought to the nearest direction that faces it."""
    unit = ray / np.sqrt((ray * ray).sum(axis=0))
    away = (normal * unit).sum(axis=0)
    turned = normal - np.where(away > 0, away, 0) * unit
    return turned / np.maximum(np.sqrt((turned * turned).sum(axis=0)), 1e-12)


def _inverse(depth_z: Depth) -> tuple[Floats, Mask]:
    depth = np.asarray(depth_z, dtype=np.float64)
    valid = depth_is_valid(depth)
    return np.where(valid, 1 / np.where(valid, depth, 1), 0), valid


def _radii(w: Floats, valid: Mask, intrinsics: Intrinsics, noise: float) -> NDArray[np.int64]:
    """Window radius (H, W) in pixels at which noise moves a fitted slope by SLOPE_ERROR."""
    side = np.sqrt(NOISE_CORRELATION * np.sqrt(12) * noise * intrinsics.fx * w / SLOPE_ERROR)
    radius = np.clip(np.ceil((side - 1) / 2), 1, LARGEST_RADIUS).astype(np.int64)
    radius = np.where(radius > 3, radius + radius % 2, radius)  # fewer different ones
    return np.where(valid, radius, 1)


def _facets(w: Floats, valid: Mask, radius: int, noise: float) -> Floats:
    """Slopes along columns and rows per pixel and the value (3, H, W) of the facet chosen for each pixel."""
    across, down, value, spread = _planes(w, valid, radius)
    floor = 2 * (noise * w * w) ** 2 + (1e-7 * w) ** 2
    best, chosen = np.full(w.shape, np.inf), np.stack([across, down, value])
    shifts = sorted(
        ((i, j) for i in (-radius, 0, radius) for j in (-radius, 0, radius)), key=lambda shift: shift != (0, 0)
    )
    for i, j in shifts:
        a, b, c, rest = (_shifted(image, i, j, fill) for image, fill in _with_fill(across, down, value, spread))
        c = c - a * j - b * i  # the window's middle is at (i, j) from the pixel
        score = rest + (w - c) ** 2
        score = np.maximum(score * CENTRED if (i, j) == (0, 0) else score, floor)
        better = score < best
        best[better] = score[better]
        chosen[:, better] = np.stack([a, b, c])[:, better]
    return chosen


def _with_fill(across: Floats, down: Floats, value: Floats, spread: Floats) -> list[tuple[Floats, float]]:
    return [(across, 0.0), (down, 0.0), (value, 0.0), (spread, np.inf)]


def _planes(w: Floats, valid: Mask, radius: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Least-squares plane of w in every window: slope per column, per row, value in the middle, mean squared rest
    (infinite where a window does not decide a plane)."""
    from scipy.ndimage import uniform_filter

    def total(image: Floats) -> Floats:
        return uniform_filter(image, 2 * radius + 1, mode="constant")

    i, j = np.meshgrid(*(np.arange(length, dtype=np.float64) for length in w.shape), indexing="ij")
    weight = valid.astype(np.float64)
    n = np.maximum(total(weight), 1e-12)
    mi, mj, mw = total(weight * i) / n, total(weight * j) / n, total(weight * w) / n
    ii, jj, ij = (
        total(weight * i * i) / n - mi**2,
        total(weight * j * j) / n - mj**2,
        total(weight * i * j) / n - mi * mj,
    )
    iw, jw = total(weight * i * w) / n - mi * mw, total(weight * j * w) / n - mj * mw
    ww = total(weight * w * w) / n - mw**2
    determinant = ii * jj - ij**2
    decided = (determinant > 0.05) & (n * (2 * radius + 1) ** 2 > 3.5)
    safe = np.where(decided, determinant, 1)
    across, down = (ii * jw - ij * iw) / safe, (jj * iw - ij * jw) / safe
    spread = np.maximum(ww - across * jw - down * iw, 0)
    return across, down, mw + across * (j - mj) + down * (i - mi), np.where(decided, spread, np.inf)


def _shifted(image: NDArray[Any], i: int, j: int, fill: float) -> NDArray[Any]:
    """image[row + i, column + j], `fill` outside."""
    height, width = image.shape
    out = np.full_like(image, fill)
    rows, columns = max(0, height - abs(i)), max(0, width - abs(j))
    to, at = slice(max(0, -i), max(0, -i) + rows), slice(max(0, -j), max(0, -j) + columns)
    out[to, at] = image[max(0, i) : max(0, i) + rows, max(0, j) : max(0, j) + columns]
    return out


def curvatures(depth_z: Depth, normal: NDArray[np.floating[Any]], intrinsics: Intrinsics, noise: float = 0.0) -> Floats:
    """Principal curvatures (2, H, W) in 1/m, the larger magnitude first, positive where convex; 0 at holes.

    The shape operator, from how the normals of eight neighbours differ, least squares in the tangent plane. A
    neighbour counts when an arc can join it: for an arc of a circle (n + n') . (P' - P) = 0. Curvature that one pixel
    cannot resolve is cut off, and so is a radius below that of `renderings.by_magnitude`. Both are averaged over about
    a centimetre, as Taskonomy's renderer takes them from a mesh.
    """
    w, valid = _inverse(depth_z)
    n = np.asarray(normal, dtype=np.float64)
    place = points(np.where(valid, depth_z, 0), intrinsics)
    radii = _radii(w, valid, intrinsics, noise)
    first, second = _tangents(n)
    sums = np.zeros((6, *w.shape))
    for i, j in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        sums += _differences(n, place, valid, first, second, i * radii, j * radii)
    aa, ab, bb, ca, mixed, db = sums
    enough = (aa * bb - ab * ab > 1e-3 * (aa + bb) ** 2) & valid
    aa, bb = np.where(enough, aa, 1), np.where(enough, bb, 1)
    ab = np.where(enough, ab, 0)
    s12 = (mixed - ab * ca / aa - ab * db / bb) / (aa + bb - ab * ab / aa - ab * ab / bb)
    s11, s22 = (ca - ab * s12) / aa, (db - ab * s12) / bb
    mean, spread = (s11 + s22) / 2, np.hypot((s11 - s22) / 2, s12)
    finest = intrinsics.fx * w  # 1 / (size of a pixel on the surface)
    both = np.where(enough, np.clip(np.stack([mean + spread, mean - spread]), -finest, finest), 0)
    smooth = _smoothed([valid.astype(np.float64), both[0], both[1]], MESH_SCALE * finest)
    return np.where(valid, by_magnitude(smooth[1:] / np.maximum(smooth[0], 1e-6)), 0)


def _tangents(n: Floats) -> tuple[Floats, Floats]:
    """Two unit vectors that make an orthonormal frame with n (Duff et al. 2017)."""
    x, y, z = n
    sign = np.where(z >= 0, 1.0, -1.0)
    a = -1 / (sign + z)
    b = x * y * a
    return np.stack([1 + sign * x * x * a, sign * b, -sign * x]), np.stack([b, sign + y * y * a, -y])


def _differences(
    n: Floats, place: Floats, valid: Mask, first: Floats, second: Floats, i: NDArray[np.int64], j: NDArray[np.int64]
) -> Floats:
    """The six sums that one neighbour adds to the normal equations of the shape operator."""
    height, width = valid.shape
    row = np.arange(height)[:, None] + i
    column = np.arange(width) + j
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    step, other = place[:, row, column] - place, n[:, row, column]
    length = np.sqrt((step * step).sum(axis=0))
    arc = np.abs(((n + other) * step).sum(axis=0)) <= 0.3 * length
    smooth = (n * other).sum(axis=0) > 0.4
    a, b = (first * step).sum(axis=0), (second * step).sum(axis=0)
    turned = other - n
    c, d = (first * turned).sum(axis=0), (second * turned).sum(axis=0)
    joined = inside & valid & valid[row, column] & arc & smooth
    return np.where(joined, np.stack([a * a, a * b, b * b, c * a, c * b + d * a, d * b]), 0)


# --- corners -------------------------------------------------------------------------------------------------------


def keypoints_3d(
    depth_z: Depth, intrinsics: Intrinsics, normal: NDArray[np.floating[Any]] | None = None, noise: float = 0.0
) -> Floats:
    """3D keypoints (H, W) in [0, 1]: 0 on planes and along creases, large near where a surface turns in two directions.

    After NARF (Steder et al. 2011), which Taskonomy's renderer uses: a point is of interest when the surface around it
    changes in different directions, and when it does not itself lie on the change. Here the change is the standard
    deviation of the normals along the direction in which they turn most, and what counts is its energy across the
    main direction, within 15 cm. NARF takes maxima over histograms of directions instead, and counts the borders of
    objects as changes; this is an approximation, with the mean of the renderer's images.
    """
    valid = depth_is_valid(depth_z)
    n = normals(depth_z, intrinsics, noise) if normal is None else np.asarray(normal, dtype=np.float64)
    reach = intrinsics.fx * KEYPOINT_RADIUS / np.where(valid, depth_z, np.inf)  # in pixels
    x, y = np.where(valid, n[:2], 0.0)
    moments = _smoothed([valid.astype(np.float64), x, y, x * x, y * y, x * y], np.maximum(CHANGE_SCALE * reach, 1.0))
    _, x, y, xx, yy, xy = moments / np.maximum(moments[0], 1e-6)
    xx, yy, xy = xx - x * x, yy - y * y, xy - x * y
    turned = np.hypot((xx - yy) / 2, xy)
    change = np.sqrt(np.maximum((xx + yy) / 2 + turned, 0))
    energy = np.where(valid & (change > LEAST_CHANGE), change * change, 0)
    along = energy / np.maximum(turned, 1e-12)
    # As of vectors of twice the angle: directions that are opposite are one, and those at right angles cancel out.
    total, first, second = _smoothed([energy, along * (xx - yy) / 2, along * xy], INTEREST_SCALE * reach)
    across = np.sqrt(np.maximum(total - np.hypot(first, second), 0))
    return np.where(valid, np.clip(INTEREST_GAIN * across * (1 - change / 2) ** 2, 0, 1), 0)


def _smoothed(images: list[Floats], sigma: Floats) -> Floats:
    """Images (C, H, W), each pixel under a Gaussian of its own `sigma` (H, W) in pixels: interpolated between Gaussians
    whose widths are half an octave apart, from half a pixel on."""
    from scipy.ndimage import gaussian_filter

    octaves = 2 * np.log2(np.maximum(sigma, NARROWEST) / NARROWEST)
    found = np.zeros((len(images), *sigma.shape))
    for step in range(int(octaves.max()) + 2):
        share = np.maximum(1 - np.abs(octaves - step), 0)
        if share.any():
            width = NARROWEST * 2 ** (step / 2)
            found += share * [gaussian_filter(image, width, mode="nearest", truncate=3.0) for image in images]
    return found


def depth_noise(depth_z: Depth, intrinsics: Intrinsics) -> float:
    """Standard deviation of depth in metres: that of its quantisation, where it has steps; else the rest of planes
    fitted in 5 x 5 windows at the flattest quarter of the image (0 below half a pixel's width: that is curvature)."""
    step = quantum(depth_z)
    w, valid = _inverse(depth_z)
    if step > 0 or valid.sum() < 64:
        return step / float(np.sqrt(12))
    spread = np.sqrt(_planes(w, valid, 2)[3])
    known = valid & np.isfinite(spread)
    rest = float(np.quantile(spread[known] / w[known], 0.25)) if known.any() else 0.0
    return rest * float(np.median(1 / w[valid])) if rest > 0.5 / intrinsics.fx else 0.0


def quantum(depth_z: Depth) -> float:
    """Quantisation step of a depth image in metres; 0 where neighbours are not mostly whole steps apart."""
    depth = np.asarray(depth_z, dtype=np.float64)
    valid = depth_is_valid(depth)
    pairs = valid[:, 1:] & valid[:, :-1]
    steps = np.abs(np.diff(depth, axis=1))[pairs]
    apart = steps[steps > 1e-6]
    if len(steps) == 0 or len(apart) < 16 or len(apart) > 0.8 * len(steps):
        return 0.0
    step = float(np.quantile(apart, 0.1))
    multiples = apart / step
    whole = np.abs(multiples - np.round(multiples)) < 0.1
    return step if whole[multiples < 4.5].mean() > 0.8 else 0.0
