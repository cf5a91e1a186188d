"""What an object of others may hold in its obs: expectations are written by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import annotated, keys

NAMED = {"sample": "sample", "patient": "patient", "phase": "phase", "main_type": "main_type"}
CELLS = ["c1", "c2", "c3", "c4"]


def obs(**more) -> pd.DataFrame:
    base = {
        "sample": ["S2", "S2", "S1", "S1"],
        "patient": ["P1"] * 4,
        "phase": ["POST", "POST", "PRE", "PRE"],
        "main_type": ["B", "NK", "B", "unresolved"],
    }
    return pd.DataFrame({**base, **more}, index=CELLS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, np.nan], ["1", ""]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([7, 12], ["7", "12"]),
        ([True, False], ["yes", "no"]),
        (pd.array([True, None], dtype="boolean"), ["yes", ""]),
        (pd.Categorical(["001", None]), ["001", ""]),
        (["a\tb\n c", "nan"], ["a b c", ""]),
        (["NA", None], ["NA", ""]),  # an id that people use; `nan` is what a missing value becomes in text
        ([1234567.0, 1.0], ["1234567", "1"]),
    ],
)
def test_text_of_a_column(values, words):
    assert annotated.as_text(pd.Series(values, index=["a", "b"])).tolist() == words


def test_required_columns_under_their_own_or_other_names():
    frame, problems = annotated.required(obs(), NAMED)
    assert problems == []
    assert frame["sample"].tolist() == ["S2", "S2", "S1", "S1"]
    other = obs().rename(columns={"sample": "orig.ident", "main_type": "celltype"})
    frame, problems = annotated.required(other, {**NAMED, "sample": "orig.ident", "main_type": "celltype"})
    assert problems == []
    assert frame["main_type"].tolist() == ["B", "NK", "B", "unresolved"]


def test_every_missing_column_and_every_empty_cell_is_a_problem():
    given = obs(main_type=["B", None, "", "Unresolved"], phase=["POST", "POST", "PRE", "nan"]).rename(
        columns={"patient": "Patient"}
    )
    frame, problems = annotated.required(given.drop(columns="sample"), NAMED)
    assert problems == [
        "obs has no column sample, which holds the sample of each cell: add it, or name yours with --sample_column",
        "obs has no column patient, which holds the patient of each cell: name Patient with --patient_column Patient",
        "obs column phase: 1 of 4 cells have no phase, the first is c4; fill it, or leave these cells out",
        "obs column main_type: 2 of 4 cells have no main_type, the first is c2; write unresolved for them",
    ]
    assert frame["main_type"].iloc[3] == keys.UNRESOLVED  # the word in any case


def test_words_that_cannot_name_files_are_refused():
    assert annotated.id_problems(pd.Series(["P1", "001", "PRE-1.a_b"]), "sample") == []
    (problem,) = annotated.id_problems(pd.Series(["P 1", "../x", "P1"]), "sample")
    assert problem.startswith("obs column sample: 2 values cannot be ids ('../x', 'P 1')")
    assert problem.endswith("rename '../x' to x for example")


def test_cell_ids_carry_their_sample_once():
    ids, problems = annotated.cell_ids(["AAA", "S1:CCC", "AAA"], ["S1", "S1", "S2"])
    assert ids == ["S1:AAA", "S1:CCC", "S2:AAA"]
    assert problems == []
    _, problems = annotated.cell_ids(["AAA", "S1:AAA", ""], ["S1", "S1", "S1"])
    assert "1 cells have no name" in problems[0]
    assert "1 names occur twice within a sample (S1:AAA)" in problems[1]


MARKERS = pd.DataFrame(
    {"main_type": ["B", "B", "Epithelial", "Odd", "Odd"], "lineage": ["immune", "immune", "epithelial", "immune", "stromal"],
     "subtype": ["", "Plasma", "", "", ""]}
)  # fmt: skip
LABELS = pd.DataFrame({"label": ["B cells", "Erythroid", "x"], "lineage": ["immune", "immune", ""], "main_type": ["B", "", ""],
                       "subtype": ["", "", ""]})  # fmt: skip


def test_lineages_come_from_types_subtypes_and_labels_of_the_tables():
    known = annotated.lineage_words(MARKERS, LABELS)
    assert known == {"b": "immune", "plasma": "immune", "epithelial": "epithelial", "b cells": "immune", "erythroid": "immune"}
    types = pd.Series(["B cells", "EPITHELIAL", "Plasma", "unresolved"], index=CELLS)
    found, problems = annotated.lineages(types, None, known)
    assert problems == []
    assert found.tolist() == ["immune", "epithelial", "immune", "unresolved"]


def test_a_given_lineage_goes_before_the_tables():
    types = pd.Series(["B", "Tumor", "B", "unresolved"], index=CELLS)
    given = pd.Series(["", "Epithelial", "immune", "stromal"], index=CELLS)
    found, problems = annotated.lineages(types, given, {"b": "immune"})
    assert problems == []
    assert found.tolist() == ["immune", "epithelial", "immune", "stromal"]


def test_unknown_odd_and_contradictory_lineages_are_problems():
    types = pd.Series(["Tumor", "Tumor", "B", "B"], index=CELLS)
    _, problems = annotated.lineages(types, None, {"b": "immune"})
    assert problems == [
        "the lineage of 1 type (cells in brackets) is in neither the marker table nor the label map: 'Tumor' (2); add an obs "
        "column lineage (epithelial, immune, stromal)"
    ]
    given = pd.Series(["myeloid", "epithelial", "immune", "stromal"], index=CELLS)
    _, problems = annotated.lineages(types, given, {})
    assert problems[0].startswith(
        "obs column lineage: 1 cells with myeloid, the first is c1; expected epithelial, immune, stromal or"
    )
    assert problems[1] == "type 'B' has cells of several lineages (immune 1, stromal 1); give each type one lineage"


def test_subtype_is_the_type_where_none_is_given():
    types = pd.Series(["B", "NK"], index=["a", "b"])
    assert annotated.subtypes(types, None).tolist() == ["B", "NK"]
    assert annotated.subtypes(types, pd.Series(["Plasma", ""], index=["a", "b"])).tolist() == ["Plasma", "NK"]


def test_sample_sheet_has_the_form_of_the_launcher():
    """Columns and order as lib/Samplesheet.groovy writes them: `_row`, then all others sorted by their bytes."""
    given = obs(batch=["none"] * 4, treated=[True, True, False, False], trait_age=[61.0] * 4, response=["R", "R", None, "R"])
    frame, _ = annotated.required(given, NAMED)
    sheet, problems = annotated.sample_sheet(frame, given, NAMED, "c.h5ad")
    assert problems == []
    assert list(sheet) == ["_row", "_path_found", "path", "patient", "phase", "response", "sample", "trait_age", "treated"]
    assert sheet.to_numpy().tolist() == [
        ["000002", "file", "c.h5ad:S1", "P1", "PRE", "R", "S1", "61", "no"],
        ["000003", "file", "c.h5ad:S2", "P1", "POST", "R", "S2", "61", "yes"],
    ]


def test_a_sample_has_one_patient_one_phase_one_batch():
    given = obs(patient=["P1", "P2", "P1", "P1"], batch=["b1", "b2", "run 3", "run 3"])
    frame, _ = annotated.required(given, NAMED)
    _, problems = annotated.sample_sheet(frame, given, {**NAMED, "patient": "donor"}, "c.h5ad")
    assert problems == [
        "obs column donor: 1 sample with several values (S2: P1, P2); expected one value per sample",
        "obs column batch: 1 sample with several values (S2: b1, b2); expected one value per sample, or rename the column if it "
        "does not describe samples",
        "obs column batch: 1 values cannot be ids ('run 3'); expected letters, digits, _ . - starting with a letter or digit: "
        "rename 'run 3' to run_3 for example",
    ]


def test_quality_columns_get_their_types_back():
    given = obs(
        n_counts=[1, 2, 3, 4],
        flag_any=[True, False, False, False],
        doublet_call=pd.Categorical(["yes", "no", "unknown", "no"]),
        lineage_pair=pd.Categorical(["B+T_NK", None, None, None]),
        doublet=["singlet", "doublet", "singlet", "singlet"],  # somebody's own words
        pct_mt=["low"] * 4,
    )
    found, odd = annotated.quality_columns(given)
    assert list(found) == ["n_counts", "flag_any", "doublet_call", "lineage_pair"]
    assert found["flag_any"].dtype == bool
    assert found["doublet_call"].tolist() == [True, False, pd.NA, False]
    assert found["lineage_pair"].tolist() == ["B+T_NK", "", "", ""]
    assert odd == ["pct_mt", "doublet"]


def test_cluster_is_the_column_of_that_name_or_leiden():
    given = obs(leiden=pd.Categorical(["0", "1", "0", "1"]), leiden_R=["x"] * 4)
    assert annotated.cluster_columns(given).to_dict("list") == {"cluster": ["0", "1", "0", "1"]}
    given["cluster"], given["leiden_2.0"] = ["a", "b", "c", "d"], [3, 2, 1, 0]
    found = annotated.cluster_columns(given)
    assert found.to_dict("list") == {"leiden_2.0": ["3", "2", "1", "0"], "cluster": ["a", "b", "c", "d"]}
    assert annotated.cluster_columns(obs()).empty


def test_columns_of_the_tumour_stage_are_told_apart():
    names = ["sample", "n_counts", "module_M1", "clone", "malignant", "epi_umap_1", "cnv_score_mean", "leiden_1.0", "my_column"]
    assert annotated.later_columns(names) == ["clone", "cnv_score_mean", "epi_umap_1", "malignant", "module_M1"]
