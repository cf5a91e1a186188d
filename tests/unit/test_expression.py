"""Cell-level and patient-level tests of two groups against scipy, dense arithmetic and hand-worked cases."""

from __future__ import annotations

import struct

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu

from scresist import expression, keys, normalise
from scresist.io import InputError


def cells(n: int, n_genes: int, seed: int, depth: float = 1.0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(rng.poisson(rng.gamma(0.3, 1.5, n_genes) * depth, (n, n_genes)).astype(np.int32))


def test_rank_sum_equals_scipy():
    """Ties, zeros, constant and unmeasured genes; one group against another and against the rest."""
    x = normalise.log1p_cp10k(cells(300, 80, 0))
    x = sparse.hstack([x, sparse.csr_matrix((300, 1), dtype=np.float32)], format="csr")
    labels = np.array(["a", "b", "c"])[np.arange(300) % 3]
    dense = x.toarray()
    dense_a = dense[labels == "a"]
    for reference, other in (("b", dense[labels == "b"]), (None, dense[labels != "a"])):
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = mannwhitneyu(dense_a, other, method="asymptotic", use_continuity=True)
        found = expression.rank_sum(x, labels, reference)
        assert sorted(found) == (["a", "c"] if reference else ["a", "b", "c"])
        table = found["a"]
        assert table["u"].to_numpy() == pytest.approx(expected.statistic)
        p = np.where(np.isnan(expected.pvalue), 1.0, expected.pvalue)
        assert np.abs(np.log10(table["p_value"]) - np.log10(p)).max() < 1e-9
        above = expected.statistic - 100 * len(other) / 2
        clear = np.abs(above) > 1  # the continuity correction takes half a rank
        assert (np.sign(table["z"].to_numpy())[clear] == np.sign(above)[clear]).all()


def test_means_shares_and_fold_changes_are_seurats():
    x = np.log1p(np.array([[0, 10.0], [20, 0], [0, 0], [4, 30], [0, 30], [0, 30]], dtype=np.float32))
    is_a = np.array([True, True, True, False, False, False])
    patient = np.array(["P", "P", "Q", "P", "Q", "Q"], dtype=object)
    table = expression.compare_cells(sparse.csr_matrix(x), pd.Index(["G", "H"]), is_a, patient, True, 0.0).set_index("gene")
    assert table.loc["G", ["mean_a", "mean_b", "pct_a", "pct_b"]].tolist() == pytest.approx([20 / 3, 4 / 3, 100 / 3, 100 / 3])
    assert table.loc["G", "log2fc"] == pytest.approx(np.log2(23 / 3) - np.log2(7 / 3))
    assert table.loc["H", "log2fc"] == pytest.approx(np.log2(13 / 3) - np.log2(31))
    # G: P 10 > 4 agrees, Q 0 = 0 does not; H: P 5 < 30 and Q 0 < 30 agree
    assert table["n_patients_same_sign"].tolist() == [1, 2] and table["n_patients_compared"].tolist() == [2, 2]
    assert table["p_bonferroni"].tolist() == pytest.approx(np.minimum(2 * table["p_value"], 1).tolist())
    u = mannwhitneyu(x[:3, 1], x[3:, 1]).statistic
    assert table.loc["H", "effect"] == pytest.approx(2 * u / 9 - 1)


def test_genes_below_min_pct_are_left_out():
    x = np.zeros((20, 3), dtype=np.float32)
    x[:1, 0] = x[:5, 1] = x[10:, 2] = 1.0
    is_a = np.arange(20) < 10
    call = lambda share: expression.compare_cells(  # noqa: E731
        sparse.csr_matrix(x), pd.Index(list("ABC")), is_a, np.repeat("P", 20), False, share
    )
    assert call(0.1)["gene"].tolist() == ["A", "B", "C"]
    assert call(0.11)["gene"].tolist() == ["B", "C"]
    assert call(1.0)["gene"].tolist() == ["C"]
    nothing = expression.compare_cells(sparse.csr_matrix((20, 2)), pd.Index(["A", "B"]), is_a, np.repeat("P", 20), False, 0.1)
    assert nothing.empty and "p_adjusted" in nothing


def test_same_sign():
    effect = np.array([1.0, -1.0, 0.0])
    mean = np.array([[5.0, 1, 1], [3, 9, 1], [4, 5, 1], [1, 6, 1]])
    is_a, patient = np.array([True, True, False, False]), np.array(["P", "Q", "P", "Q"])
    paired, n = expression.same_sign(effect, mean, is_a, patient, True)
    assert paired.tolist() == [2, 1, 0] and n.tolist() == [2, 2, 2]  # P 5 > 4, Q 3 > 1; P 1 < 5, Q 9 > 6
    # unpaired, means of A (4, 5), of B (2.5, 5.5): A 5 and 3 agree, B 4 does not, B 1 does; A 1 does, A 9 not, B 5 not, B 6 does
    free, n = expression.same_sign(effect, mean, is_a, np.array(list("PQRS")), False)
    assert free.tolist() == [3, 2, 0] and n.tolist() == [4, 4, 4]
    assert expression.same_sign(effect, mean[:1], is_a[:1], patient[:1], False)[1].tolist() == [0, 0, 0]


def test_small_groups_have_no_say_in_the_consistency():
    x = normalise.log1p_cp10k(cells(41, 10, 1))
    patient = np.array(["P"] * 20 + ["Q"] + ["R"] * 20, dtype=object)
    call = lambda least: expression.compare_cells(  # noqa: E731
        x, pd.Index(list("ABCDEFGHIJ")), np.arange(41) < 21, patient, False, 0.0, least
    )
    assert set(call(1)["n_patients_compared"]) == {3} and set(call(2)["n_patients_compared"]) == {2}


def test_direction_needs_both_thresholds():
    words = expression.direction(np.array([0.6, -0.6, 0.5, 0.6, 0.6]), np.array([0.01, 0.01, 0.01, 0.05, np.nan]), 0.5, 0.05)
    assert words.tolist() == ["up", "down", "", "", ""]


def pseudobulk_of(n_a: int, n_b: int, paired: bool = False, n_cells: int = 12, **more):
    """Cells of one sample per patient and side; every tenth gene tripled on side A."""
    rng = np.random.default_rng(4)
    mean = rng.gamma(1.0, 6.0, 120) + 3
    side = np.repeat(["a"] * n_a + ["b"] * n_b, n_cells)
    sample = np.repeat([f"A{i}" for i in range(n_a)] + [f"B{i}" for i in range(n_b)], n_cells)
    mu = mean * np.where((side == "a")[:, None] & (np.arange(120) % 10 == 0), 3, 1)
    counts = sparse.csr_matrix(rng.poisson(mu * rng.gamma(5, 0.2, (len(side), 120))).astype(np.int32))
    patient_of = {f"A{i}": f"P{i}" for i in range(n_a)} | {f"B{i}": f"P{i}" if paired else f"Q{i}" for i in range(n_b)}
    options = {"paired": paired, "min_cells": 10, "min_replicates": 2, "alpha": 0.05} | more
    options["patient_of"] = patient_of | options.pop("other_patients", {})
    genes = pd.Index([f"g{i:03d}" for i in range(120)])
    return expression.compare_patients(counts, genes, sample, side, **options), counts, sample


@pytest.mark.parametrize("paired", [False, True])
def test_patients_find_what_was_planted(paired):
    made, counts, sample = pseudobulk_of(3, 3, paired)
    assert made.tested and made.patients_a == ["P0", "P1", "P2"] and len(made.patients_b) == 3
    hits = made.table[(made.table["p_adjusted"] < 0.05) & (made.table["log2fc"] > 0.5)]
    assert hits["gene"].tolist() == [f"g{i:03d}" for i in range(0, 120, 10)]
    assert hits["log2fc"].median() == pytest.approx(np.log2(3), abs=0.3)
    row = made.samples.set_index("sample").loc["A1"]
    assert row["counts"] == counts[sample == "A1"].sum() and row["n_cells"] == 12 and row["used"]
    rows = expression.pseudobulk_rows(made, "main_type", "B", "X_vs_Y", 0.5, 0.05)
    assert set(rows["evidence"]) == {keys.REPLICATED} and set(rows["unit"]) == {"patient"}
    assert (rows["ci_low"] < rows["log2fc"]).all() and set(rows["direction"]) == {"", "up"}


def test_samples_of_one_patient_are_one_unit():
    """Six samples of two patients a side are two against two, not three against three."""
    joined = {"A2": "P1", "B2": "Q1"}
    made, _, _ = pseudobulk_of(3, 3, other_patients=joined)
    assert (made.patients_a, made.patients_b, made.n_samples_a) == (["P0", "P1"], ["Q0", "Q1"], 3)
    assert set(expression.pseudobulk_rows(made, "l", "t", "c", 0.5, 0.05)["evidence"]) == {keys.LIMITED}
    one, _, _ = pseudobulk_of(2, 2, other_patients={"A1": "P0"})
    assert not one.tested and one.reason == "patients with enough cells: 1 against 2, 2 needed on each side"
    assert expression.pseudobulk_rows(one, "l", "t", "c", 0.5, 0.05).columns.tolist() == list(expression.PSEUDOBULK_COLUMNS)


def test_poor_samples_and_lone_patients_are_left_out_with_a_reason():
    made, _, _ = pseudobulk_of(3, 3, n_cells=9)
    assert set(made.samples["reason"]) == {"fewer than 10 cells"} and not made.tested
    few = sparse.csr_matrix(np.ones((40, 5), dtype=np.int32))
    sample = np.repeat(["A", "B"], 20)
    none = expression.compare_patients(
        few, pd.Index(list("vwxyz")), sample, np.repeat(["a", "b"], 20), {"A": "P", "B": "Q"}, False, 10, 2, 0.05
    )
    assert set(none.samples["reason"]) == {"fewer than 1,000 counts"}
    lone, _, _ = pseudobulk_of(3, 2, True)
    reasons = lone.samples.set_index("sample")["reason"]
    assert reasons["A2"] == "the patient has no usable sample on the other side" and lone.patients_a == ["P0", "P1"]
    assert lone.tested
    refused, _, _ = pseudobulk_of(3, 1, True)
    assert refused.reason == "pairs of patients with enough cells: 1 against 1, 2 needed on each side"


def tables():
    """A cell-level and a patient-level table of three genes."""
    shared = {"level": "l", "cell_type": "t", "gene": ["A", "B", "C"], "log2fc": [2.0, -1.0, 0.1]}
    cell = pd.DataFrame(shared | {"p_value": [1e-9, 1e-5, 0.9], "p_adjusted": [1e-8, 1e-4, 0.9], "statistic": [6.0, -4, 0.1]})
    cell["pct_a"] = cell["pct_b"] = 50.0
    cell = cell.assign(n_patients_same_sign=2, n_patients_compared=3, evidence=keys.CELL_LEVEL, direction=["up", "down", ""])
    patient = pd.DataFrame(shared | {"p_value": [np.nan, 1e-3, 0.5], "p_adjusted": [np.nan, 2e-3, 0.6], "stat": [5.0, -3, 0.7]})
    return cell, patient.assign(evidence=keys.LIMITED, direction=["", "down", ""])


def test_ranking_takes_patients_where_they_were_tested():
    cell, patient = tables()
    by_cells = expression.ranking("expression", "B", "X_vs_Y", cell, patient.head(0))
    assert by_cells["gene"].tolist() == ["A", "C", "B"] and by_cells["score"].tolist() == [6.0, 0.1, -4.0]
    assert set(by_cells["evidence"]) == {keys.CELL_LEVEL} and by_cells["direction"].tolist() == ["up", "", "down"]
    by_patients = expression.ranking("expression", "B", "X_vs_Y", cell, patient)
    assert by_patients[["gene", "score"]].to_numpy().tolist() == [["C", 0.7], ["B", -3.0]]  # A has no p
    assert set(by_patients["evidence"]) == {keys.LIMITED} and list(by_patients) == list(expression.RANKING_COLUMNS)


def test_top_genes_show_both_views():
    cell, patient = tables()
    top = expression.top_genes(cell, patient, 5)
    assert top[["side", "gene"]].to_numpy().tolist() == [["up", "C"], ["down", "B"]]
    assert top["padj_cells"].tolist() == [0.9, 1e-4] and top["padj_patients"].tolist() == [0.6, 2e-3]
    alone = expression.top_genes(cell, patient.head(0), 1)
    assert alone["gene"].tolist() == ["A", "B"] and alone["padj_patients"].isna().all()
    assert expression.top_genes(cell.head(0), patient, 1)["pct_a"].isna().all()


def test_significant_counts():
    cell, patient = tables()
    assert expression.significant(cell, 0.5, 0.05) == (1, 1) and expression.significant(cell, 1.5, 0.05) == (1, 0)
    assert expression.significant(patient, 0.5, 0.05) == (0, 1) and expression.significant(patient.head(0), 0.5, 0.05) == (0, 0)


def test_volcano_is_a_small_png_and_repeatable():
    rng = np.random.default_rng(0)
    points = pd.DataFrame({"gene": [f"G{i}" for i in range(4000)], "log2fc": rng.normal(0, 1, 4000)})
    points["p_adjusted"] = rng.uniform(0, 1, 4000) ** (1 + 6 * points["log2fc"].abs())
    pair = [expression.Panel("cells", points), expression.Panel("patients", points.head(0), "no test: <b>")]
    first = expression.volcano([pair], "title", 0.5, 0.05, "POST", "PRE")
    assert first == expression.volcano([pair], "title", 0.5, 0.05, "POST", "PRE")
    assert first.startswith(b"\x89PNG") and len(first) < 250_000
    width, _ = struct.unpack(">II", first[16:24])
    assert 600 < width < 1600
    assert expression.volcano([], "title", 0.5, 0.05, "A", "B").startswith(b"\x89PNG")


def test_levels_and_labels():
    names = pd.Index(["s:1", "s:2", "s:3"])
    annotation = pd.DataFrame({"main_type": ["B", "unresolved", None], "lineage": "immune"}, index=names)
    clusters = pd.DataFrame({"cluster": ["0", "1"]}, index=["s:3", "s:1"])
    labels = expression.join_labels(names, annotation, pd.Index(["s:3"]), [clusters])
    assert expression.level_labels("main_type", labels).tolist() == ["B", "", ""]
    assert expression.level_labels("tumour", labels).tolist() == ["", "", "tumour"]
    assert expression.level_labels("cluster", labels).tolist() == ["cluster:1", "", "cluster:0"]


def test_tumour_calls_that_do_not_fit():
    names = pd.Index(["s:1", "s:2"])
    good = pd.DataFrame({"tumour": [True, None]}, index=["s:1", "s:2"], dtype=object)
    assert expression.tumour_cells({"P": good}, names, "m").tolist() == ["s:1"]
    assert expression.tumour_cells({}, names, "m").empty
    foreign = pd.DataFrame({"tumour": [True]}, index=["x:9"])
    with pytest.raises(InputError) as caught:
        expression.tumour_cells({"P": good, "Q": good, "R": foreign, "S": foreign[[]]}, names, "merged.h5ad")
    text = str(caught.value)
    assert "Q: 2 cells stand in another file too, the first is s:1" in text and "S: no column tumour" in text
    assert "R: 1 of 1 cells are not in merged.h5ad, first x:9" in text


@pytest.mark.real
def test_interferon_genes_lead_in_kang(shared_data):
    """PBMC with and without interferon beta: ISG15 and MX1 among the ten strongest, cell by cell and over donors."""
    data = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    counts = sparse.csr_matrix(data.X).astype(np.int32)
    x = normalise.log1p_cp10k(counts)
    is_a, donor = (data.obs["condition"] == "stim").to_numpy(), data.obs["donor"].astype(str).to_numpy()
    table = expression.compare_cells(x, data.var_names, is_a, donor, True, 0.1).sort_values("p_value")
    assert {"ISG15", "MX1"} <= set(table["gene"].head(10))
    assert table.set_index("gene").loc["ISG15", "log2fc"] > 3
    dense = x[:, data.var_names.get_indexer(table["gene"])].toarray()
    expected = mannwhitneyu(dense[is_a], dense[~is_a], method="asymptotic", use_continuity=True).pvalue
    kept = expected > 1e-290  # below, the double precision of both ends
    assert np.abs(np.log10(table["p_value"].to_numpy()[kept]) - np.log10(expected[kept])).max() < 1e-9
    # two donors were sequenced with and without; the others leave the paired design
    person = np.array([name.removeprefix("stim").removesuffix(".0") for name in donor])
    known = person != "nan"
    sample = np.where(is_a, "s", "c").astype(object) + person
    made = expression.compare_patients(
        counts[known], data.var_names, sample[known], np.where(is_a, "a", "b")[known],
        dict(zip(sample, person, strict=True)), True, 10, 2, 0.05,
    )  # fmt: skip
    assert made.patients_a == ["101", "107"] and made.tested
    assert {"ISG15", "MX1"} <= set(made.table.sort_values("p_value")["gene"].head(10))


@pytest.mark.real
def test_patients_deny_what_cells_claim_in_melanoma(shared_data):
    """Sade-Feldman (log values): the rank-sum over 19 patients against that over 550 cells."""
    data = anndata.read_h5ad(shared_data / "sade_feldman_mel" / "sade_3523x550.h5ad")
    genes = ["PDCD1", "TCF7", "TGFBR2"]
    values = data[:, genes].X.toarray()
    is_a = np.where(data.obs["condition"] == "Responder", "a", "b")
    per_cell = expression.rank_sum(sparse.csr_matrix(values), is_a, "b")["a"]["p_value"]
    assert (per_cell[:2] < 1e-8).all()
    means = pd.DataFrame(values).groupby(data.obs["patient"].to_numpy()).mean()
    side = pd.Series(is_a).groupby(data.obs["patient"].to_numpy()).first().to_numpy()
    per_patient = expression.rank_sum(sparse.csr_matrix(means.to_numpy()), side, "b")["a"]["p_value"]
    assert per_patient.tolist() == pytest.approx([0.025, 0.031, 0.18], rel=0.03)
