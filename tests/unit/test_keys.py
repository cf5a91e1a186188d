"""Names that every step shares: their order."""

from __future__ import annotations

from itertools import permutations

import pytest

from scresist import keys, report


@pytest.mark.parametrize(
    "names",
    [
        ["P.C1", "P.C2", "P.C10"],
        ["PRE-2", "PRE-10", "PRE-10b", "RES-1"],
        ["2", "10", "b", "b1"],
        ["01", "1", "01a"],  # equal numbers, other names: still one order
        ["1", "1²", "²", "٣"],  # digits of other scripts are letters here
        ["", "a", "a "],
    ],
)
def test_one_order_of_names(names):
    for given in permutations(names):
        assert sorted(given, key=keys.natural) == names


def test_the_report_sorts_as_the_steps_do():
    assert report.natural is keys.natural
