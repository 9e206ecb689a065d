"""What loads without torch, the configuration and all that is made of tables, knows the same names as what computes."""

from typing import get_args

from headstrong import attackplan, generator_timing
from headstrong.analysis import mta_tables
from headstrong.attackconfig import AdversarialConfig, Balancer, Stepper
from headstrong.attacks.balancers import BALANCERS
from headstrong.attacks.run import FROM_CLEAN, STEPPERS
from headstrong.attacks.steppers import STEPPERS as GRADIENT_STEPPERS
from headstrong.config import Encoder
from headstrong.figures import balanced
from headstrong.models import BRANCHED, ENCODERS
from headstrong.models.multitask import SEGNETS


def test_steppers_and_where_they_start():
    assert set(get_args(Stepper)) == set(STEPPERS)
    assert set(attackplan.FROM_START) == set(STEPPERS) - set(FROM_CLEAN) - {"noise"}
    assert set(attackplan.ONE_STEP) < set(STEPPERS)
    assert set(attackplan.IN_EQUAL_STEPS) < set(FROM_CLEAN)
    assert set(balanced.STEPPERS) == set(GRADIENT_STEPPERS) - {"noise"}, "figures and page leave others out"


def test_balancers():
    assert set(get_args(Balancer)) == {*BALANCERS, "wgd"}
    trained_against = get_args(AdversarialConfig.model_fields["balancer"].annotation)
    assert set(trained_against) == {*BALANCERS, "wgd"} - {"single"}
    assert set(balanced.LOOKS) == set(BALANCERS), "figures and page leave others out"


def test_columns_of_costs():
    assert mta_tables.COST_COLUMNS == generator_timing.COLUMNS


def test_encoders():
    assert set(get_args(Encoder)) == {*ENCODERS, *BRANCHED, *SEGNETS}
