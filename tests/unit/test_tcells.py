"""Scores of T-cell states: worked cases, scanpy, and cohorts whose answer is known."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import comparison, io, keys, panels, tcells

BUNDLED = "assets/tcell_states.tsv"


@pytest.fixture(scope="module")
def states(root):
    return tcells.check_states(io.read_tsv(root / BUNDLED, dtype=str), "tcell_states.tsv")


def test_bundled_signatures(root, states):
    """Every state of the fragment, sources with a doi, symbols in use today, no gene that two states share."""
    table = io.read_tsv(root / BUNDLED, dtype=str)
    assert list(table) == list(tcells.STATE_COLUMNS)
    assert list(states) == list(tcells.STATES)
    assert table["source"].str.contains(r"\d{4} doi:10\.").all()
    assert min(len(genes) for genes in states.values()) >= 4
    assert not table["gene"].duplicated().any()
    known = pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t", dtype=str)
    assert set(table["gene"]) <= set(known[known.columns[0]])
    assert set(keys.TCELL_SCORES) <= {state + tcells.SUFFIX for state in tcells.STATES}


def test_faults_of_the_table():
    table = pd.DataFrame(
        [("naive", "TCF7"), ("naive", "TCF7"), ("Naive T", "CCR7"), ("naive", "")], columns=["state", "gene"]
    )  # fmt: skip
    with pytest.raises(io.InputError) as told:
        tcells.check_states(table, "s.tsv")
    text = str(told.value)
    assert "row 4: state 'Naive T', expected small letters" in text
    assert "row 5: gene is empty" in text
    assert "naive TCF7 stands twice" in text
    with pytest.raises(io.InputError, match="no column gene; expected state, gene, source, found state"):
        tcells.check_states(table[["state"]], "s.tsv")


def test_own_states_come_after_the_fixed_ones():
    made = tcells.check_states(pd.DataFrame({"state": ["stem", "naive"], "gene": ["TCF7", "CCR7"]}), "s.tsv")
    assert list(made) == [*tcells.STATES, "stem"]
    assert made["cytotoxic"] == []


def test_types():
    main = ["CD4_T", "CD8_T", "NK", "B", "NKT cell", "CD4_T", "Natural killer", ""]
    lineage = ["immune"] * 5 + ["stromal", "immune", "immune"]
    made = tcells.types_of(main, lineage)
    assert list(made) == ["t_cell", "CD4_T", "CD8_T", "NK", "NKT cell", "Natural killer"]
    assert made["CD4_T"].tolist() == [True] + [False] * 7  # the stromal cell is none
    assert np.flatnonzero(made["t_cell"]).tolist() == [0, 1, 4]
    assert list(tcells.types_of(main, lineage, ["B"])) == ["B"]
    assert list(tcells.types_of(["T cell", "NK"], ["immune"] * 2)) == ["NK", "T cell"]  # one T type: nothing to pool
    assert tcells.types_of(["Epithelial"], ["epithelial"]) == {}


def test_scores_by_hand():
    """With fewer than 500 genes the plain mean; a state with one measured gene has none."""
    x = sparse.csr_matrix(np.array([[1.0, 3.0, 0.0], [0.0, 2.0, 5.0]]))
    scores, basis = tcells.score_cells(x, ["A", "B", "C"], {"one": ["A", "B", "Z"], "two": ["C", "Y"]}, {"one": 1, "two": 1})
    assert scores["one_score"].tolist() == [2.0, 1.0]
    assert scores["two_score"].isna().all()
    assert basis.loc["one"].tolist() == [2, "Z", "mean"]
    assert basis.loc["two"].tolist() == [1, "Y", "none"]


def test_scores_equal_scanpy_up_to_the_controls():
    import scanpy as sc

    rng = np.random.default_rng(0)
    genes = [f"G{i:04d}" for i in range(900)]
    x = sparse.csr_matrix(np.log1p(rng.poisson(rng.gamma(0.5, 1.0, 900), (200, 900))).astype(np.float32))
    chosen = genes[100:112]
    scores, basis = tcells.score_cells(x, genes, {"s": chosen}, {"s": 5})
    adata = anndata.AnnData(x, var=pd.DataFrame(index=genes))
    sc.tl.score_genes(adata, chosen, ctrl_size=50, n_bins=25, random_state=0)
    assert basis.loc["s", "method"] == "score"
    assert np.corrcoef(scores["s_score"], adata.obs["score"])[0, 1] > 0.97


SAMPLES = pd.DataFrame({"sample": list("abcd"), "patient": ["P1", "P2", "P3", "P4"], "phase": ["PRE", "PRE", "POST", "POST"]})


def test_values_and_tests():
    sample = np.repeat(list("abcd"), 5)
    score = np.concatenate([np.arange(5.0), np.arange(5.0) + 1, np.arange(5.0) + 10, np.arange(5.0) + 20])
    masks = {"T": np.ones(20, dtype=bool), "NK": np.arange(20) % 5 < 2}
    values = tcells.value_rows(pd.DataFrame({"naive_score": score}), masks, sample, SAMPLES, {"naive_score": 4}, 3)
    assert list(values) == list(tcells.VALUE_COLUMNS)
    row = values[(values["cell_type"] == "T") & (values["sample"] == "a")].iloc[0]
    assert row[["mean", "q1", "median", "q3", "n_cells"]].tolist() == [2, 1, 2, 3, 5]
    small = values[values["cell_type"] == "NK"]
    assert small["status"].eq(keys.SKIPPED_TOO_FEW_CELLS).all()
    assert small["reason"].eq("2 cells, 3 needed").all()
    assert small["mean"].isna().all()
    contrast = comparison.Contrast("POST_vs_PRE", ("c", "d"), ("a", "b"), False, keys.OK, "", "acquired_resistance")
    alone = comparison.Contrast("X_vs_PRE", ("c",), ("a", "b"), False, keys.NO_REPLICATES, "1 patient", "declared")
    tests = tcells.test_rows(values, [contrast, alone], SAMPLES, ["PRE", "POST"])
    assert list(tests) == list(tcells.TEST_COLUMNS)
    made = tests[tests["cell_type"] == "T"].set_index("contrast")
    assert made.loc["POST_vs_PRE", "effect"] == pytest.approx(17 - 2.5)
    assert made.loc["POST_vs_PRE", "p_value"] == pytest.approx(2 / 6)
    assert made.loc["X_vs_PRE", ["status", "reason"]].tolist() == [keys.NO_REPLICATES, "1 patient"]
    assert tests[tests["cell_type"] == "NK"]["status"].eq(keys.NOT_ESTIMABLE).all()
    assert tests[tests["cell_type"] == "NK"]["effect"].isna().all()


def test_phases_are_compared_with_kruskal_and_dunn():
    rng = np.random.default_rng(1)
    samples = pd.DataFrame(
        [(f"{phase}{i}", f"{phase}P{i}", phase) for phase in ("PRE", "RES", "POST") for i in range(3)],
        columns=["sample", "patient", "phase"],
    )
    values = samples.assign(score="exhaustion_score", cell_type="CD8_T", mean=rng.random(9), n_cells=20)
    tests = tcells.test_rows(values, [], samples, ["PRE", "RES", "POST"])
    groups = [values.loc[values["phase"] == p, "mean"].to_numpy() for p in ("PRE", "RES", "POST")]
    whole = tests[tests["test"] == "kruskal_wallis"].iloc[0]
    assert whole["p_value"] == pytest.approx(stats.kruskal(*groups).pvalue)
    assert whole["adjust_method"] == "BH:scores x cell types"
    pairs = tests[tests["test"] == "dunn"].set_index("contrast")
    assert set(pairs.index) == {"RES_vs_PRE", "POST_vs_PRE", "POST_vs_RES"}
    welch = stats.ttest_ind(groups[2], groups[0], equal_var=False).confidence_interval()
    assert pairs.loc["POST_vs_PRE", ["ci_low", "ci_high"]].tolist() == pytest.approx([welch.low, welch.high])


@pytest.mark.real
def test_exhaustion_marks_melanoma_without_response(shared_data, states):
    """T cells before anti-PD-1 (Sade-Feldman 2018): 19 patients, the patient as unit. Log values, so the kernel is called."""
    adata = anndata.read_h5ad(shared_data / "sade_feldman_mel" / "sade_3523x550.h5ad")
    x = sparse.csr_matrix(adata.X, dtype=np.float64)
    scores, basis = tcells.score_cells(x, list(adata.var_names), states, dict.fromkeys(states, 1))
    assert basis.loc["exhaustion", "n_genes"] >= 7
    table = scores.set_index(adata.obs_names).assign(
        patient=adata.obs["patient"].astype(str).to_numpy(), responds=adata.obs["condition"].astype(str).to_numpy() == "Responder"
    )
    means = table.groupby(["patient", "responds"]).mean().reset_index()
    assert len(means) == 19
    yes, no = means[means["responds"]], means[~means["responds"]]
    assert no["exhaustion_score"].mean() > yes["exhaustion_score"].mean()
    assert no["naive_score"].mean() < yes["naive_score"].mean()
    assert comparison.rank_sum(no["exhaustion_score"].to_numpy(), yes["exhaustion_score"].to_numpy())[1] < 0.05
    assert comparison.rank_sum(no["naive_score"].to_numpy(), yes["naive_score"].to_numpy())[1] < 0.05


@pytest.mark.real
def test_killers_and_naive_cells_of_blood(shared_data, states):
    """Unstimulated blood (Kang 2018): cytotoxic highest in NK, then CD8; naive highest in CD4."""
    from scresist import normalise

    adata = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    adata = adata[(adata.obs["condition"] == "ctrl") & adata.obs["cell_type"].notna()]
    x = normalise.log1p_cp10k(sparse.csr_matrix(adata.X))
    scores, _ = tcells.score_cells(sparse.csr_matrix(x), list(adata.var_names), states, dict.fromkeys(states, 1))
    mean = scores.groupby(adata.obs["cell_type"].astype(str).to_numpy()).mean()
    assert mean["cytotoxic_score"].sort_values(ascending=False).index[:2].tolist() == ["NK cells", "CD8 T cells"]
    assert mean["naive_score"].idxmax() == "CD4 T cells"
    assert panels.T_CELL.search("CD8 T cells")
    assert tcells.NK_CELL.search("NK cells")
