"""Losses of classifiers, among them those that favour important classes; per picture, so that any mean can follow.

The first three take logits (B, C) of a linear layer, the last three cosines (B, C): of the angles theta_k between a
picture's feature vector and the weight vector of class k, without bias. All take class numbers long (B,) and give
float (B,). Formulas and symbols are those of Nishiyama et al., "CAMRI Loss" (IJCNN 2022, arXiv 2209.10920); t is the
true class.

The margin is added to the angle, so theta_t + m can pass pi, where the cosine rises again: a feature that points away
from its class would be rewarded for pointing away farther. `large_angles` says what happens there:

* "monotone": -2 - cos(theta_t + m), which goes on falling, with no jump of value or slope at pi. The continuation that
  SphereFace (Liu et al., CVPR 2017, eq. 7) uses for its multiplied angles. Ours.
* "unhandled": cos(theta_t + m) whatever the angle, as the official code has it.

`arcface` and `camri` raise ValueError for another word where an angle is taken.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

COSINES = ("softmax", "arcface", "camri")  # losses of cosines; those of logits: ce, wce, crwwce
LARGE_ANGLES = ("monotone", "unhandled")
CLIP = 1e-7  # cosines keep so far from -1 and 1, where the angle has no derivative; the official code's number
LEAST = 1e-7  # probabilities of wrong classes keep so far from 1, where the logarithm of the rest is infinite


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """CE (B,), in nats: -log h_t, with h the softmax of the logits (B, C)."""
    return functional.cross_entropy(logits, truth, reduction="none")


def weighted_cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """WCE: -w_t log h_t with a weight (C,) per class (Panchapagesan et al., Interspeech 2016).

    A batch's loss is the mean over its pictures of this, not divided by the sum of their weights, as the formula of the
    CAMRI paper's comparison has it and torch's own weighted mean has not.
    """
    return weights[truth] * cross_entropy(logits, truth)


def real_world_weight_cross_entropy(logits: Tensor, truth: Tensor, missed: Tensor, mistaken: Tensor) -> Tensor:
    """RWWCE with one label per picture (Ho and Wookey, IEEE Access 2020).

    -missed_t log h_t - sum over k != t of mistaken_{t,k} log(1 - h_k). missed (C,): cost of not telling a class;
    mistaken (C, C): cost of taking class t (row) for k (column), whose diagonal does not count. `missed` of ones and
    `mistaken` of zeros is CE.
    """
    costs = mistaken[truth].scatter(1, truth[:, None], 0.0)
    wrong = functional.softmax(logits, dim=1).clamp(max=1 - LEAST)
    return missed[truth] * cross_entropy(logits, truth) - (costs * torch.log1p(-wrong)).sum(dim=1)


def normalised_softmax(cosines: Tensor, truth: Tensor, scale: float) -> Tensor:
    """L2-constrained, normalised softmax: CE of s cos theta_k (the CAMRI paper's poster, item c)."""
    return cross_entropy(scale * cosines, truth)


def arcface(cosines: Tensor, truth: Tensor, margin: float, scale: float, large_angles: str = "monotone") -> Tensor:
    """ArcFace (Deng et al., CVPR 2019): the same margin in radians for all classes (the poster's item d-1)."""
    margins = cosines.new_full((cosines.shape[1],), margin)
    return camri(cosines, truth, margins, scale, large_angles)


def camri(cosines: Tensor, truth: Tensor, margins: Tensor, scale: float, large_angles: str = "monotone") -> Tensor:
    """CAMRI: a margin m_k (C,) in radians for every class, above 0 for the important ones and 0 for the others.

    -log( exp(s cos(theta_t + m_t)) / ( exp(s cos(theta_t + m_t)) + sum over k != t of exp(s cos theta_k) ) ).
    With no margin it is `normalised_softmax`, with equal ones `arcface`. Pictures of classes without a margin have the
    normalised softmax exactly: the angle is not taken of them.
    """
    own = cosines.gather(1, truth[:, None]).squeeze(1)
    margin = margins[truth]
    moved = torch.where(margin == 0, own, _with_margin(own, margin, large_angles))
    return cross_entropy(scale * cosines.scatter(1, truth[:, None], moved[:, None]), truth)


def _with_margin(cosine: Tensor, margin: Tensor, large_angles: str) -> Tensor:
    """cos(theta + m) of cos(theta) (B,) and m (B,), and what follows beyond pi."""
    if large_angles not in LARGE_ANGLES:
        raise ValueError(f"large_angles '{large_angles}'; choose from {', '.join(LARGE_ANGLES)}")
    angle = torch.acos(cosine.clamp(-1 + CLIP, 1 - CLIP)) + margin
    moved = torch.cos(angle)
    return moved if large_angles == "unhandled" else torch.where(angle > math.pi, -2 - moved, moved)
