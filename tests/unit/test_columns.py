"""Every per-cell column has an origin and a meaning, whatever its step calls it."""

from __future__ import annotations

import pytest

from scresist import columns, keys


@pytest.mark.parametrize(
    "name",
    [keys.CELL, *keys.IDENTITY, *keys.QC_METRICS, *keys.QC_FLAGS, *keys.DOUBLET_COLUMNS, keys.KEPT, keys.DROP_REASON, *keys.UMAP],
)
def test_every_named_column_is_described(name):
    found = columns.describe(name)
    assert found is not None
    assert len(found.meaning) > 10
    assert found.meaning.endswith(".")


@pytest.mark.parametrize(("name", "step"), [("leiden_0.4", "cluster_cohort"), ("Immune_All_High_label", "annotate_cells")])
def test_columns_named_after_a_setting_are_described_by_their_pattern(name, step):
    assert columns.describe(name).step == step


def test_a_column_that_nobody_owns_has_no_description():
    assert columns.describe("surprise") is None
