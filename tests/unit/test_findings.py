"""Statements of the first page: wording by who stands behind them; expectations are written by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import findings, io, keys, report

DESIGN = pd.DataFrame({"sample": ["S1", "S2", "S3"], "patient": ["P1", "P2", "P3"], "phase": ["PRE", "POST", "RES"]})
CELLS = pd.DataFrame(
    {
        "sample": ["S1"] * 4 + ["S2"] * 4 + ["S3"],
        "patient": ["P1"] * 4 + ["P2"] * 4 + ["P3"],
        "phase": ["PRE"] * 4 + ["POST"] * 4 + ["RES"],
        "kept": [True] * 4 + [True, True, True, False, False],
        "drop_reason": [""] * 7 + ["doublet", "sample_skipped"],
        "main_type": ["B", "B", "B", "NK", "B", "NK", "unresolved", None, None],
    }
)


def test_only_tested_replicated_results_are_claims():
    assert findings.wording("replicated", tested=True) == ("", "was")
    for kind, tested in (("replicated", False), ("single_patient", True), ("cell_level", True)):
        assert findings.wording(kind, tested) == ("exploratory: ", "looked")


def test_findings_are_exploratory_without_a_test(tmp_path):
    contrasts = pd.DataFrame(
        [("POST_vs_PRE", "POST", "PRE"), ("RES_vs_PRE", "RES", "PRE")], columns=["contrast", "side_a", "side_b"]
    )
    io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
    made = report.facts(DESIGN, CELLS)
    found = findings.build(made, report.Tables(tmp_path), CELLS)
    shift = found[found["contrast"] == "POST_vs_PRE"].iloc[0]
    # B: 1 of 3 against 3 of 4
    assert shift["statement"].startswith(
        "exploratory: the share of B looked lower in POST than in PRE (mean 33 % of 1 patient, 75 %"
    )
    assert shift["effect"] == pytest.approx(1 / 3 - 3 / 4) and shift["evidence"] == "single_patient"
    assert "RES_vs_PRE" not in set(found["contrast"])  # no cell of RES is in the cohort: nothing to say, not zero
    assert list(found.columns) == ["statement", "step", "contrast", "effect", "p_adjusted", "evidence", "table"]


def test_findings_of_the_tumour_stage_say_who_stands_behind_them(tmp_path):
    genes = {"contrast": "POST_vs_PRE", "cell_type": "tumour", "evidence": "replicated", "n_up_pseudobulk": 23,
             "n_down_pseudobulk": 83, "n_patients_used_a": 3, "n_patients_used_b": 4}  # fmt: skip
    cells_only = {**genes, "contrast": "RES_vs_PRE", "evidence": "cell_level"}
    io.write_tsv(pd.DataFrame([genes]), tmp_path / "POST_vs_PRE.de_summary.tsv")
    io.write_tsv(pd.DataFrame([cells_only]), tmp_path / "RES_vs_PRE.de_summary.tsv")
    traits = pd.DataFrame(
        {"module": ["M1", "M2", "M3"], "trait": "primary_resistance", "level": ["sample", "sample", "cell_level"],
         "rho": [0.9, 0.8, 0.9], "n": 8, "p_adjusted": [0.01, 0.2, 1e-9], "evidence": ["replicated", "replicated", "cell_level"],
         "contrast": "PRE-R_vs_PRE"}
    )  # fmt: skip
    io.write_tsv(traits, tmp_path / "module_traits.tsv")
    changes = pd.DataFrame(
        {"patient": "P1", "clone": ["P1.C1", "P1.C2"], "contrast": "POST_vs_PRE", "class": ["emerging", "uncertain"],
         "n_a": [70, 5], "N_a": 140, "n_b": 0, "N_b": 100, "diff": 0.5, "p_adjusted": 1e-9, "evidence": "cell_level"}
    )  # fmt: skip
    io.write_tsv(changes, tmp_path / "P1.clone_changes.tsv")
    made = findings.build(report.Facts(), report.Tables(tmp_path), pd.DataFrame(columns=[keys.KEPT]))
    found = {row["step"]: row for row in made.to_dict("records")}
    assert found["test_expression"]["statement"] == (
        "106 genes differed in tumour cells between patients of POST and PRE: 23 higher, 83 lower in the first "
        "(3 against 4 patients)"
    )
    assert "module M1 of tumour cells rose with primary resistance" in found["find_programs"]["statement"]
    assert found["trace_clones"]["statement"] == (
        "exploratory: clone P1.C1 appeared: 0 % to 50 % of the malignant cells, POST against PRE (one patient)"
    )
    steps = made["step"].tolist()
    assert (steps.count("test_expression"), steps.count("find_programs"), steps.count("trace_clones")) == (1, 1, 1)


def test_findings_of_shares_states_and_signals(tmp_path):
    head = {"level": "main_type", "denominator": "all", "method": "propeller_logit", "contrast": "POST_vs_PRE", "mean_a": 0.04}
    head |= {"mean_b": 0.1, "n_patients_a": 3, "n_patients_b": 4, "evidence": "replicated"}
    rows = [
        {**head, "cell_type": "CD8_T", "effect": -0.9, "p_adjusted": 0.01},
        {**head, "cell_type": "NK", "effect": 0.9, "p_adjusted": 0.2},
        {**head, "cell_type": "B", "effect": -0.9, "p_adjusted": 0.01, "evidence": "single_patient"},
        {**head, "cell_type": "Mast", "effect": -0.9, "p_adjusted": 0.01, "method": "rank"},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "composition_tests.tsv")
    states = {"cell_type": "CD8_T", "contrast": "response:PD_vs_PR", "n_patients_a": 3, "n_patients_b": 4}
    states |= {"test": "rank_sum_exact", "evidence": "replicated"}
    rows = [
        {**states, "score": "exhaustion_score", "effect": 0.4, "p_adjusted": 0.03},
        {**states, "score": "naive_score", "effect": 0.4, "p_adjusted": np.nan},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "tcell_tests.tsv")
    flow = {"rank": 1, "effect": 0.2, "p_adjusted": 0.01, "evidence": "replicated", "cell_effect": 0.2, "cell_p_adjusted": 0.01}
    flow |= {"n_patients_a": 3, "n_patients_b": 4}
    rows = [
        {**flow, "contrast": "POST_vs_PRE", "pathway": "TGFb"},
        {**flow, "contrast": "RES_vs_PRE", "pathway": "MHC-I", "p_adjusted": np.nan, "evidence": "single_patient"},
        {**flow, "contrast": "RES_vs_PRE", "pathway": "CXCL", "p_adjusted": np.nan, "evidence": "single_patient", "rank": 2},
        {**flow, "contrast": "X_vs_Y", "pathway": "EGF", "p_adjusted": 0.5, "cell_p_adjusted": 0.5},
        {**flow, "contrast": "phases", "pathway": "EGF"},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "ranknet.tsv")
    tables = report.Tables(tmp_path)
    made = [*findings.shares_of_types(tables), *findings.tcells(tables), *findings.signals(tables)]
    assert [row[0] for row in made] == [
        "the share of CD8_T was lower in POST than in PRE (mean 4.0 % of 3 patients, 10.0 % of 4)",
        "the exhaustion score of CD8 T was higher in PD than in PR (3 against 4 patients)",
        "signalling by TGFb was stronger in POST than in PRE (information flow, 3 against 4 patients)",
        "exploratory: signalling by MHC-I looked stronger in RES than in PRE; the largest change of any pathway, tested"
        " over cells, not patients",
    ]
    assert [row[5] for row in made] == ["replicated", "replicated", "replicated", "cell_level"]
    assert made[0][3] == pytest.approx(-0.06)



def test_findings_of_the_card(tmp_path):
    head = {"kind": "route", "n_supports": 3, "n_against": 1, "n_neutral": 0, "n_not_estimable": 0}
    head |= {"contrast": "POST_vs_PRE", "word": "supported"}
    rows = [
        {**head, "patient": "P1", "route": "pre_existing_clone", "evidence": "single_patient"},
        {**head, "patient": "P1", "route": "reprogramming", "evidence": "single_patient", "word": "mixed"},
        {**head, "patient": "P1", "route": "target_loss", "evidence": "single_patient", "kind": "line"},
        {**head, "patient": "cohort", "route": "microenvironment", "evidence": "replicated"},
        {**head, "patient": "cohort", "route": "reprogramming", "evidence": "single_patient"},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "route_card.tsv")
    made = findings.routes(report.Tables(tmp_path))
    assert [row[0] for row in made] == [
        "exploratory: in patient P1 the route pre existing clone is supported by 3 of 4 items that could be judged"
        " (POST against PRE)",
        "in the cohort the route microenvironment is supported by 3 of 4 items that could be judged (POST against PRE)",
        "exploratory: in the cohort the route reprogramming is supported by 3 of 4 items that could be judged (POST against PRE)",
    ]


def test_findings_of_other_patients_and_cell_lines(tmp_path):
    cox = {"dataset": "acrg", "kind": "gene", "endpoint": "OS", "model": "univariate", "per": "sd", "n": 300, "events": 152}
    cox |= {"ci_low": 1.2, "ci_high": 1.8, "status": "ok"}
    rows = [
        {**cox, "marker": "ZEB1", "hr": 1.48, "padj": 0.001},
        {**cox, "marker": "MKI67", "hr": 0.76, "padj": 0.004, "ci_low": 0.64, "ci_high": 0.9},
        {**cox, "marker": "CST3", "hr": 1.1, "padj": 0.3},
        {**cox, "marker": "MUC3A", "hr": np.nan, "padj": np.nan},
        {**cox, "marker": "ZEB1", "hr": 1.5, "padj": 0.001, "model": "adjusted"},
        {**cox, "marker": "sub", "hr": 2.0, "padj": 0.01, "kind": "group", "per": "EMT vs MSI"},
        {**cox, "marker": "KRAS", "hr": 5.2, "padj": 0.01, "status": "warning", "events": 4},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "acrg.cox.tsv")
    wells = {"compound": "ADC", "line": "N87", "treatment": np.nan, "contrast": "shX_vs_shCtrl", "unit": "replicate", "n_a": 3}
    wells |= {"n_b": 3, "test": "tukey_hsd", "evidence": "in_vitro"}
    rows = [
        {**wells, "fold_change": 0.125, "p_adjusted": 0.001},
        {**wells, "fold_change": 0.1, "p_adjusted": 1e-9, "unit": "well"},
        {**wells, "fold_change": 0.9, "p_adjusted": 0.5},
        {**wells, "fold_change": np.nan, "p_adjusted": np.nan},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "dose_tests.tsv")
    stain = {"marker": "HER2", "contrast": "POST_vs_PRE", "unit": "patient", "test": "rank_sum_exact", "mean_a": 0.25}
    stain |= {"mean_b": 0.8, "n_patients_a": 4, "n_patients_b": 4, "evidence": "replicated"}
    rows = [
        {**stain, "p_adjusted": 0.03},
        {**stain, "p_adjusted": 0.001, "unit": "field", "evidence": "single_patient"},
        {**stain, "p_adjusted": 0.001, "test": "mixed_model"},
    ]
    io.write_tsv(pd.DataFrame(rows), tmp_path / "staining_tests.tsv")
    tables = report.Tables(tmp_path)
    made = [*findings.survival(tables), *findings.dose_response(tables), *findings.staining(tables)]
    assert [row[0] for row in made] == [
        "in acrg a higher ZEB1 went with shorter OS (hazard ratio 1.48 per standard deviation, 95 % 1.2 to 1.8; 300 patients,"
        " 152 events)",
        "in acrg a higher MKI67 went with longer OS (hazard ratio 0.76 per standard deviation, 95 % 0.64 to 0.9; 300 patients,"
        " 152 events)",
        "in acrg OS differed by sub (hazard ratio 2 EMT vs MSI, 95 % 1.2 to 1.8; 300 patients, 152 events)",
        "exploratory: in acrg a higher KRAS went with shorter OS (hazard ratio 5.2 per standard deviation, 95 % 1.2 to 1.8;"
        " 300 patients, 4 events)",
        "the IC50 in shX was 0.125 times that in shCtrl (ADC, N87; 3 against 3 replicates, cells in a dish)",
        "stained HER2 was lower in POST than in PRE (mean 0.25 of 4 patients, 0.8 of 4)",
    ]
    assert [row[5] for row in made] == ["other_patients"] * 4 + ["in_vitro", "replicated"]
