"""The configuration, which loads without torch, knows the same names as the code that computes."""

from typing import get_args

from headstrong import attackplan
from headstrong.attackconfig import AdversarialConfig, Balancer, Stepper
from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.run import FROM_CLEAN, STEPPERS
from headstrong.config import Encoder
from headstrong.models import BRANCHED, ENCODERS
from headstrong.models.multitask import SEGNETS


def test_steppers_and_where_they_start():
    assert set(get_args(Stepper)) == set(STEPPERS)
    assert set(attackplan.FROM_START) == set(STEPPERS) - set(FROM_CLEAN) - {"noise"}
    assert set(attackplan.ONE_STEP) < set(STEPPERS)
    assert set(attackplan.IN_EQUAL_STEPS) < set(FROM_CLEAN)


def test_balancers():
    assert set(get_args(Balancer)) == {*BALANCERS, "wgd"}
    trained_against = get_args(AdversarialConfig.model_fields["balancer"].annotation)
    assert set(trained_against) == {*BALANCERS, "wgd"} - {"single"}


def test_encoders():
    assert set(get_args(Encoder)) == {*ENCODERS, *BRANCHED, *SEGNETS}
