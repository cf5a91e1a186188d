"""Status rows: names that a reason lists."""

from __future__ import annotations

from scresist import status


def test_a_reason_lists_a_few_names_and_counts_the_rest():
    assert status.few([]) == ""
    assert status.few(["A"]) == "A"
    assert status.few(list("ABCDEF")) == "A, B, C, D, E, F"
    assert status.few(list("ABCDEFGH")) == "A, B, C, D, E, F and 2 more"
    assert status.few(list("ABC"), 1) == "A and 2 more"
