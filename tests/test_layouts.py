"""Layouts: counted by brute force, numbered as TreeMTL's notebook prints them, and what they share."""

import itertools
import subprocess
import sys

import pytest

from headstrong import layouts
from headstrong.errors import ConfigError


def partitions(tasks):
    """All set partitions, from all ways to give each task one of so many colours."""
    found = set()
    for colours in itertools.product(range(tasks), repeat=tasks):
        blocks = {colour: tuple(t for t in range(tasks) if colours[t] == colour) for colour in colours}
        found.add(tuple(sorted(blocks.values())))
    return found


def refines(fine, coarse):
    return all(any(set(small) <= set(large) for large in coarse) for small in fine)


def everything(tasks):
    return [layouts.layout(index, tasks) for index in range(layouts.count(tasks))]


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_the_layouts_are_all_chains_of_refinements(tasks):
    chains = {
        chain
        for chain in itertools.product(partitions(tasks), repeat=layouts.LEVELS)
        if all(refines(below, above) for above, below in itertools.pairwise(chain))
    }
    assert set(everything(tasks)) == chains
    assert layouts.count(tasks) == len(chains)


@pytest.mark.parametrize(("tasks", "number"), [(1, 1), (2, 6), (3, 51), (4, 561), (5, 7556)])
def test_the_counts_are_the_known_ones_and_no_layout_comes_twice(tasks, number):
    found = everything(tasks)
    assert layouts.count(tasks) == len(set(found)) == number
    possible = partitions(tasks)
    for chain in found:
        assert len(chain) == layouts.LEVELS
        assert set(chain) <= possible
        assert all(refines(below, above) for above, below in itertools.pairwise(chain))


def test_the_numbers_of_three_tasks_are_those_that_treemtls_notebook_prints():
    # CoarseVersion.ipynb: all shared; then by the level of the first cut, by the pair that stays together (1 2, then
    # 0 2, then 0 1), and for each pair first the layout without a second cut, then those with one, by its level. All
    # three apart from one level on are printed under the first pair only.
    together, apart = ((0, 1, 2),), ((0,), (1,), (2,))
    printed = [(together,) * 5]
    for first in range(5):
        for pair in [((0,), (1, 2)), ((0, 2), (1,)), ((0, 1), (2,))]:
            printed.append((together,) * first + (pair,) * (5 - first))
            earliest = first if pair == ((0,), (1, 2)) else first + 1
            printed += [
                (together,) * first + (pair,) * (second - first) + (apart,) * (5 - second)
                for second in range(earliest, 5)
            ]
    assert everything(3) == printed
    pair = ((0, 1), (2,))  # the best of NYUv2 by TreeMTL: number 45
    assert layouts.layout(45, 3) == (together, together, together, pair, pair)


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5])
def test_number_0_shares_everything_and_the_separate_one_nothing(tasks):
    assert layouts.layout(0, tasks) == ((tuple(range(tasks)),),) * 5
    assert layouts.layout(layouts.separate(tasks), tasks) == (tuple((task,) for task in range(tasks)),) * 5
    assert layouts.sharing(layouts.layout(0, tasks)) == 1
    if tasks > 1:
        shares = [layouts.sharing(layout) for layout in everything(tasks)]
        assert (shares.count(1), shares.count(0)) == (1, 1)
        assert shares[layouts.separate(tasks)] == 0


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_sharing_is_the_mean_of_the_pairs_shared_levels(tasks):
    pairs = list(itertools.combinations(range(tasks), 2))
    for layout in everything(tasks):
        levels = [layouts.shared_levels(layout, i, j) for i, j in pairs]
        assert layouts.sharing(layout) == pytest.approx(sum(levels) / len(levels) / 5)
        assert levels == [layouts.shared_levels(layout, j, i) for i, j in pairs]


def test_shared_levels_are_those_of_a_tree_and_decide_the_layout():
    seen = set()
    for layout in everything(4):
        shared = {(i, j): layouts.shared_levels(layout, i, j) for i in range(4) for j in range(4)}
        seen.add(tuple(shared.values()))
        for i, j, k in itertools.permutations(range(4), 3):
            assert shared[i, k] >= min(shared[i, j], shared[j, k])
        assert all(shared[i, i] == 5 for i in range(4))
    assert len(seen) == 561


def test_a_layout_keeps_its_meaning_under_another_order_of_the_tasks():
    before, after = "sndk", "kdsn"
    numbers = []
    for index in range(0, 561, 5):
        numbers.append(layouts.renumbered(index, before, after))
        for one, other in itertools.combinations(before, 2):
            there = layouts.shared_levels(layouts.layout(index, 4), before.index(one), before.index(other))
            here = layouts.shared_levels(layouts.layout(numbers[-1], 4), after.index(one), after.index(other))
            assert here == there
        assert layouts.renumbered(numbers[-1], after, before) == index
    assert len(set(numbers)) == len(numbers)
    with pytest.raises(ConfigError, match="tasks 'snd' and 'snk' are not the same"):
        layouts.renumbered(0, "snd", "snk")


@pytest.mark.parametrize(("index", "tasks"), [(51, 3), (-1, 3), (1, 1), (7556, 5), (0, 0)])
def test_a_number_that_is_not_there_is_refused_in_one_line(index, tasks):
    with pytest.raises(ConfigError, match=rf"layout {index}: expected a number from 0 to") as caught:
        layouts.layout(index, tasks)
    assert "\n" not in str(caught.value)


def test_early_numbers_of_many_tasks_need_no_list_of_all():
    assert layouts.count(11) > 10**11
    assert layouts.layout(0, 11) == ((tuple(range(11)),),) * 5
    assert layouts.layout(10, 11)[0] == tuple((task,) for task in range(11))


def test_it_loads_without_torch():
    script = "import sys, headstrong.layouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
