"""The curvature targets as the released loader reads them: one grey value in place of two channels.

The loader of Ghamizi et al. (2022) tests for a domain name that does not exist and so reads the colour image of the
curvatures as grey in [0, 1]. It then normalises it with the means and deviations of two channels in [0, 255]. Both
target channels come out nearly constant: in [-3.871, -3.840] and in [-5.545, -5.499].
"""

from __future__ import annotations

from typing import Any

from headstrong.tasks import CURVATURE_MEAN, CURVATURE_STD

CURVATURES = ("decoded", "grey")
# Luminance of red and green, ITU-R BT.601, by which image libraries turn colour into grey. The third channel of
# Taskonomy's curvature images is 0 (its renderer, create_curvature_images.py), so blue has no part in it.
LUMINANCE = (0.299, 0.587)


def read_as_grey(first: Any, second: Any) -> tuple[Any, Any]:
    """Both channels of the released target from both channels of the encoded one (`tasks.encode`), of any shape.

    Numbers, arrays or tensors: the tables, which do without torch, use it as well.

    The map is affine: it takes the mean of targets to the mean of what it makes of them. Grey levels are not rounded to
    the 256 of an image file.
    """
    red, green = (first * CURVATURE_STD[0] + CURVATURE_MEAN[0], second * CURVATURE_STD[1] + CURVATURE_MEAN[1])
    grey = (LUMINANCE[0] * red + LUMINANCE[1] * green) / 255
    return (grey - CURVATURE_MEAN[0]) / CURVATURE_STD[0], (grey - CURVATURE_MEAN[1]) / CURVATURE_STD[1]
