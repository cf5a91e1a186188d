"""Joining by cell id and conservative types: expectations written by hand on three or four cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import assembly, columns, keys
from scresist.io import InputError

CELLS = pd.Index(["S1:a", "S1:b", "S2:a"], name="cell")


def base() -> pd.DataFrame:
    return pd.DataFrame({"sample": ["S1", "S1", "S2"], "kept": [True, False, True]}, index=CELLS)


def test_join_goes_by_id_not_by_place():
    fragment = pd.DataFrame({"cluster": ["9", "5"]}, index=["S2:a", "S1:a"])
    joined = assembly.join(base(), {"clusters.parquet": fragment})
    assert joined["cluster"].iloc[0] == "5" and joined["cluster"].iloc[2] == "9"
    assert pd.isna(joined["cluster"].iloc[1])
    shuffled = assembly.join(base(), {"clusters.parquet": fragment.iloc[::-1]})
    pd.testing.assert_frame_equal(joined, shuffled)


def test_parts_of_patients_become_one_fragment():
    one = pd.DataFrame({"clone": ["P1.C1"]}, index=["b:1"])
    two = pd.DataFrame({"clone": ["P2.C1", "P2.C2"]}, index=["a:1", "a:2"])
    none = pd.DataFrame({"clone": pd.Series([], dtype=object)}, index=pd.Index([], dtype=object))
    other = pd.DataFrame({"cluster": ["0"]}, index=["b:1"])
    found = assembly.gather({"P2.clones.parquet": two, "P1.clones.parquet": one, "P3.clones.parquet": none, "c": other})
    assert sorted(found) == ["P1.clones.parquet", "c"]
    assert found["P1.clones.parquet"]["clone"].to_dict() == {"a:1": "P2.C1", "a:2": "P2.C2", "b:1": "P1.C1"}


def test_parts_that_share_a_cell_stay_apart_and_are_refused():
    one = pd.DataFrame({"clone": ["P1.C1"]}, index=["b:1"])
    found = assembly.gather({"x": one, "y": one})
    assert sorted(found) == ["x", "y"]
    with pytest.raises(InputError, match="y: column `clone` stands in x too"):
        assembly.join(pd.DataFrame(index=["b:1"]), found)


def test_gaps_keep_whole_numbers_and_truth_values():
    fragment = pd.DataFrame({"n": [3], "yes": [True]}, index=["S1:a"])
    joined = assembly.join(base(), {"x.parquet": fragment})
    assert str(joined["n"].dtype) == "Int64" and joined["n"].tolist()[0] == 3
    assert str(joined["yes"].dtype) == "boolean" and joined["yes"].isna().sum() == 2


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (["S1:a", "S1:a"], "x.parquet: 1 cells occur more than once, the first is S1:a"),
        (["S1:a", "S9:z"], "x.parquet: 1 of 2 cells are unknown to the cohort, the first is S9:z"),
    ],
)
def test_join_refuses_repeated_and_foreign_cells(index, message):
    with pytest.raises(InputError, match=message):
        assembly.join(base(), {"x.parquet": pd.DataFrame({"n": [1, 2]}, index=index)})


def test_join_names_every_problem_at_once():
    twice = pd.DataFrame({"sample": ["S1"]}, index=["S1:a"])
    foreign = pd.DataFrame({"n": [1]}, index=["S9:z"])
    with pytest.raises(InputError) as caught:
        assembly.join(base(), {"a.parquet": twice, "b.parquet": foreign})
    assert "a.parquet: column `sample` stands in cells too" in str(caught.value)
    assert "b.parquet: 1 of 1 cells" in str(caught.value)


def test_join_without_cells():
    joined = assembly.join(base().iloc[:0], {"x.parquet": pd.DataFrame({"n": pd.Series(dtype=int)})})
    assert list(joined) == ["sample", "kept", "n"] and len(joined) == 0


@pytest.mark.parametrize(
    ("values", "levels", "codes"),
    [
        (pd.Series([True, None, False], dtype=object), ["no", "unknown", "yes"], [2, 1, 0]),
        (pd.Series([True, None], dtype="boolean"), ["unknown", "yes"], [1, 0]),
        (pd.Series(["b", "a", None]), ["a", "b"], [1, 0, -1]),
        (pd.Series(["b", "a"], dtype="string"), ["a", "b"], [1, 0]),
        (pd.Series([None, None], dtype=object), ["unknown"], [0, 0]),
        (pd.Series(pd.Categorical(["x"], categories=["x", "never"])), ["x"], [0]),
        (pd.Series(["", ""]), [""], [0, 0]),
    ],
)
def test_text_and_gapped_truth_become_categories(values, levels, codes):
    made = assembly.conservative(values)
    assert list(made.cat.categories) == levels and list(made.cat.codes) == codes
    assert made.cat.categories.dtype == object  # pandas' own string types are what older readers refuse


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pd.Series([1, None], dtype="Int64"), "float64"),
        (pd.Series([1, 2], dtype="Int64"), "int64"),
        (pd.Series([1.5, None]), "float64"),
        (pd.Series([True, False]), "bool"),
        (pd.Series([True, False], dtype="boolean"), "bool"),
        (pd.Series([True, False], dtype=object), "bool"),
    ],
)
def test_numbers_lose_nullable_types(values, dtype):
    assert str(assembly.conservative(values).dtype) == dtype


def test_embedding_is_ordered_by_number():
    frame = pd.DataFrame({"latent_10": [10.0], "latent_2": [2.0], "latent_1": [1.0], "umap_1": [0.0]})
    values, names = assembly.embedding(frame)
    assert names == ["latent_1", "latent_2", "latent_10"] and values.tolist() == [[1, 2, 10]] and values.dtype == np.float32


def test_describe_counts_gaps_and_lists_absent_columns():
    frame = pd.DataFrame({"cell": ["a", "b"], "main_type": ["B", None], "leiden_1.0": ["0", None], "n_genes": [1, 2]})
    table = assembly.describe(frame).set_index("column")
    assert table.loc["main_type", "n_missing"] == 1 and table.loc["main_type", "step"] == "annotate_cells"
    assert table.loc["leiden_1.0", "meaning"] == "Leiden cluster at resolution 1.0."
    assert table.loc["n_genes", "type"] == "whole number"
    assert table.loc["doublet_score", "type"] == "absent" and table.loc["doublet_score", "n_missing"] == 2


def test_describe_refuses_columns_that_nobody_described():
    with pytest.raises(InputError, match="columns without a meaning: mystery; add them"):
        assembly.describe(pd.DataFrame({"mystery": [1]}))


def test_every_name_of_keys_has_a_meaning():
    """A per-cell column is added to keys.py and to columns.py together."""
    names = {keys.CELL, *keys.IDENTITY, *keys.QC_METRICS, *keys.QC_FLAGS, *keys.DOUBLET_COLUMNS, keys.KEPT, keys.DROP_REASON}
    names |= {*keys.UMAP, keys.CLUSTER, f"{keys.LEIDEN_PREFIX}0.4", keys.MAIN_TYPE, keys.SUBTYPE, keys.LINEAGE, keys.TYPE_STATUS}
    names |= {keys.ANNOTATION_CONFIDENCE, keys.MARKER_TYPE, keys.MARKER_SCORE, "Immune_All_High_label", "Immune_All_High_conf"}
    assert [name for name in sorted(names) if columns.describe(name) is None] == []


def test_portable_takes_none_out_of_uns():
    """`None` is written as an encoding that anndata before 0.11 does not know."""
    assert assembly.portable({"log1p": {"base": None}, 3: "x"}) == {"log1p": {"base": ""}, "3": "x"}
