"""Our steppers against those of torchattacks 3.5.1 and foolbox 3.3.4, on one small classifier.

One task, cross entropy per image. Everything is float64, so that no sign depends on the order of a sum, and attacks
that do the same arithmetic must give the same images.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attack_problems import ids, make_attack
from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.run import perturb
from headstrong.attacks.steppers import Problem, apgd
from headstrong.attacks.threat import BALLS
from headstrong.jobs import AttackJob

torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")

torch.set_num_threads(1)

COUNT, SHAPE = 64, (3, 8, 8)
LINF, L2 = 0.06, 0.7
SINGLE = make_attack(balancer="single", attacked="s")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(72, 5)),
        )
        for parameter in network.parameters():
            parameter.data *= 2  # random weights as they come leave the loss almost flat
    return network.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(COUNT, *SHAPE, generator=draw, dtype=torch.float64).mul(1.2).sub(0.1).clamp(0, 1)


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(COUNT) % 5


def loss(model: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(model(points), labels, reduction="none")


def ours(model: nn.Module, images: Tensor, labels: Tensor, **changes: object) -> Tensor:
    attack = replace(SINGLE, **changes)
    return perturb(lambda x: loss(model, x, labels)[:, None], images, attack, "s", ids(images), 0)


def foolboxes(attack: object, model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    return attack.run(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilon=epsilon)  # type: ignore[attr-defined]


def assert_same(found: Tensor, expected: Tensor, images: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    assert float((found - images).abs().max()) > 0.01


# --- FGSM and PGD: equal ---------------------------------------------------------------------------------------------


def test_fgsm_equals_both_peers(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    found = ours(model, images, labels, stepper="fgsm", epsilon=LINF)
    assert_same(found, torchattacks.FGSM(model, eps=LINF)(images, labels), images)
    assert_same(found, foolboxes(foolbox.attacks.LinfFastGradientAttack(), model, images, labels, LINF), images)


def test_linf_pgd_equals_both_peers(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    found = ours(model, images, labels, epsilon=LINF, step_size=0.013, steps=12)
    peer = torchattacks.PGD(model, eps=LINF, alpha=0.013, steps=12, random_start=False)
    assert_same(found, peer(images, labels), images)
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.013, steps=12, random_start=False)
    assert_same(found, foolboxes(attack, model, images, labels, LINF), images)


def test_l2_pgd_equals_both_peers_away_from_the_box(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Where no channel meets 0 or 1. torchattacks adds 1e-10 to a gradient's norm, which moves images by 1e-9 or so."""
    inner = images * 0.2 + 0.4
    found = ours(model, inner, labels, norm="l2", epsilon=0.3, step_size=0.1, steps=12)
    peer = torchattacks.PGDL2(model, eps=0.3, alpha=0.1, steps=12, random_start=False)
    torch.testing.assert_close(found, peer(inner, labels), atol=1e-7, rtol=0)
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.1, steps=12, random_start=False)
    assert_same(found, foolboxes(attack, model, inner, labels, 0.3), inner)
    assert 0 < float(found.min()) < float(found.max()) < 1


def test_l2_pgd_uses_the_ball_up_where_the_box_binds(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Both peers scale into the ball and clip to [0, 1] afterwards, which leaves them inside the ball.

    Ours projects on both at once, so channels that the box lets go further do, and the attack is the stronger one.
    """
    found = ours(model, images, labels, norm="l2", epsilon=L2, step_size=0.2, steps=20)
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.2, steps=20, random_start=False)
    peer = foolboxes(attack, model, images, labels, L2)
    size = BALLS["l2"](L2).size
    assert float(size(peer, images).max()) < L2 * (1 - 1e-4)
    torch.testing.assert_close(size(found, images), torch.full((COUNT,), L2, dtype=torch.float64))
    gain = loss(model, found, labels) - loss(model, peer, labels)
    assert float(gain.mean()) > 0
    assert float((gain > -1e-6).double().mean()) > 0.9


# --- MIM -------------------------------------------------------------------------------------------------------------


def test_mim_equals_torchattacks(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """torchattacks divides a gradient by the mean of its magnitudes, not their sum: the same signs at decay 1."""
    found = ours(model, images, labels, stepper="mim", epsilon=LINF, step_size=0.013, steps=12)
    peer = torchattacks.MIFGSM(model, eps=LINF, alpha=0.013, steps=12, decay=1.0)
    assert_same(found, peer(images, labels), images)


def test_mim_of_foolbox_adds_up_signs(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """foolbox takes the gradient's sign first, sums signs, and adds the sum to the image without a sign of its own.

    So after one step it is ours; later its steps are up to as many times longer as steps were made, and where signs
    cancel it stands still. Not the formula of Dong et al. 2018; the two are only close in strength.
    """
    attack = lambda steps: foolbox.attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=0.013, steps=steps)  # noqa: E731
    first = ours(model, images, labels, stepper="mim", epsilon=LINF, step_size=0.013, steps=1)
    assert_same(first, foolboxes(attack(1), model, images, labels, LINF), images)
    found = ours(model, images, labels, stepper="mim", epsilon=LINF, step_size=0.013, steps=12)
    peer = foolboxes(attack(12), model, images, labels, LINF)
    assert not torch.allclose(found, peer)
    clean = loss(model, images, labels).mean()
    rise = [float(loss(model, points, labels).mean() - clean) for points in (found, peer)]
    assert rise[0] == pytest.approx(rise[1], rel=0.1)


# --- APGD ------------------------------------------------------------------------------------------------------------


def apgd_start(images: Tensor, norm: str, epsilon: float) -> Tensor:
    """torchattacks' random start, from torch's own random state: its size is epsilon, and then it is clipped."""
    if norm == "linf":
        draw = 2 * torch.rand(images.shape) - 1
        return (images + epsilon * draw / draw.flatten(1).abs().amax(1).view(-1, 1, 1, 1)).clamp(0, 1)
    draw = torch.randn(images.shape)
    return (images + epsilon * draw / draw.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", LINF), ("l2", L2)])
@pytest.mark.parametrize("steps", [10, 50, 100])
def test_apgd_is_as_strong_as_torchattacks(
    steps: int, norm: str, epsilon: float, model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    """Same start, same number of steps. Where torchattacks' APGD differs from Algorithm 1 of Croce & Hein, and ours:

    - checkpoints: it rounds .22 N, .06 N and .03 N down to whole steps; the paper rounds each checkpoint p_j N up;
    - it halves at a share of rises equal to rho as well; the paper below rho only;
    - after going back to the best point it compares the next value with that of the point it gave up;
    - at the first checkpoint it never halves for lack of progress;
    - L2: it scales into the ball, then clips; ours projects on ball and box together;
    - it takes the gradient at the last point too, and does not use it.
    """
    attack: AttackJob = replace(SINGLE, stepper="apgd", norm=norm, epsilon=epsilon, steps=steps)
    peer = torchattacks.APGD(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, steps=steps)
    with torch.random.fork_rng():
        torch.manual_seed(steps)
        expected = peer.attack_single_run(images, labels)[0].detach()
        torch.manual_seed(steps)
        start = apgd_start(images, norm, epsilon)
    losses = lambda x: loss(model, x, labels)[:, None]  # noqa: E731
    problem = Problem(losses, BALANCERS["single"], BALLS[norm](epsilon), images, losses(images))
    found = apgd(problem, start, attack)
    clean, theirs, mine = (loss(model, points, labels) for points in (images, expected, found))
    assert float((theirs - clean).min()) > 0
    relative = (mine - theirs) / (theirs - clean)
    assert float(relative.mean()) > -0.002
    assert float((relative > -0.02).double().mean()) > 0.9
    if norm == "linf" and steps == 100:  # the checkpoints are the same: most images go the same way to the end
        assert int((found - expected).flatten(1).abs().amax(1).lt(1e-6).sum()) > COUNT / 2
