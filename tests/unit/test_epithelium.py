"""Tumour epithelium: cell cycle, genes of clusters, names, where clusters occur."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import clustering, epithelium, io, keys, normalise


def bundled(root):
    return epithelium.check_cycle(io.read_tsv(root / "assets" / "cell_cycle.tsv", dtype=str), "cell_cycle.tsv")


def cycling_cells(root, n_cells=300, n_plain=1200, seed=0):
    """A third of the cells in S, a third in G2M (their lists x 4), a third in neither; log values, names, truth."""
    lists = bundled(root)
    rng = np.random.default_rng(seed)
    names = sorted([*lists["S"], *lists["G2M"], *(f"GENE{i:04d}" for i in range(n_plain))])
    rate = np.tile(np.exp(rng.normal(-1.0, 1.2, len(names))), (n_cells, 1))
    truth = np.array(["S", "G2M", "G1"])[np.arange(n_cells) % 3]
    for phase in ("S", "G2M"):
        at = [names.index(g) for g in lists[phase]]
        rate[np.ix_(truth == phase, at)] *= 4.0
    counts = sparse.csr_matrix(rng.poisson(rate * rng.lognormal(0, 0.2, (n_cells, 1))).astype(np.int32))
    return normalise.log1p_cp10k(counts), names, lists, truth


# --- cell cycle


def test_bundled_list(root):
    lists = bundled(root)
    assert (len(lists["S"]), len(lists["G2M"])) == (43, 54)  # Tirosh 2016
    assert {"MCM5", "PCNA", "TYMS", "CENPU"} <= set(lists["S"])
    assert {"TOP2A", "MKI67", "CDK1", "PIMREG", "JPT1"} <= set(lists["G2M"])
    assert not set(lists["S"]) & set(lists["G2M"])
    positions = pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t")
    assert set(lists["S"]) | set(lists["G2M"]) <= set(positions["symbol"])


@pytest.mark.real
def test_bundled_list_is_the_published_one(root, shared_data):
    published = set((shared_data / "cell_cycle" / "cellCycle-genes_scCancer.txt").read_text().split())
    table = io.read_tsv(root / "assets" / "cell_cycle.tsv", dtype=str)
    older = table["source"].str.extract(r"there (\S+)")[0]
    assert set(older.fillna(table["gene"])) == published


def test_faults_of_the_list_at_once():
    table = pd.DataFrame({"gene": ["A", "B", "A"], "phase": ["S", "M", "G2M"]})
    with pytest.raises(io.InputError, match=r"row 3: phase 'M' of gene 'B'[\s\S]*gene A stands twice"):
        epithelium.check_cycle(table, "mine.tsv")
    with pytest.raises(io.InputError, match=r"mine.tsv: no column phase; expected gene, phase, found gene"):
        epithelium.check_cycle(table[["gene"]], "mine.tsv")


def test_cycle_equals_scanpy_up_to_the_draw_of_controls(root):
    import scanpy as sc

    x, names, lists, truth = cycling_cells(root)
    ours = epithelium.cell_cycle(x, names, lists, seed=1)
    stock = anndata.AnnData(x.copy(), obs=pd.DataFrame({"phase": "PRE"}, index=[str(i) for i in range(x.shape[0])]))
    stock.var_names = names
    sc.tl.score_genes_cell_cycle(stock, s_genes=lists["S"], g2m_genes=lists["G2M"])
    assert np.corrcoef(ours["s_score"], stock.obs["S_score"])[0, 1] >= 0.99
    assert np.corrcoef(ours["g2m_score"], stock.obs["G2M_score"])[0, 1] >= 0.99
    assert (ours["cycle_phase"].to_numpy() == stock.obs["phase"].astype(str).to_numpy()).mean() >= 0.95
    dividing = truth != "G1"
    assert (ours["cycle_phase"].to_numpy() == truth)[dividing].mean() >= 0.95
    assert list(ours) == ["s_score", "g2m_score", "cycle_phase"]  # never `phase`


def test_dividing_cells_are_told_from_noise(root):
    x, names, lists, truth = cycling_cells(root)
    cycle = epithelium.cell_cycle(x, names, lists, seed=1)
    found = epithelium.dividing(x, names, lists, cycle, seed=1)
    assert found[truth != "G1"].mean() > 0.95
    assert found[truth == "G1"].mean() < 0.1
    # cells without any cycle: the phases of the scores call most of them S or G2M, this call one in twenty
    still = x[truth == "G1"]
    cycle = epithelium.cell_cycle(still, names, lists, seed=1)
    assert (cycle["cycle_phase"] != "G1").mean() > 0.5
    assert epithelium.dividing(still, names, lists, cycle, seed=1).mean() < 0.1


def test_cycle_without_its_genes_is_missing(root):
    x, names, lists, _ = cycling_cells(root, 30, 100)
    few = epithelium.cell_cycle(x, names, {"S": lists["S"][:4], "G2M": lists["G2M"]}, 1)
    assert few[["s_score", "g2m_score", "cycle_phase"]].isna().all(axis=None)
    assert not epithelium.dividing(x, names, lists, few, 1).any()
    assert len(few) == 30


# --- genes of clusters


def grouped(seed=3, n=90, n_genes=40):
    rng = np.random.default_rng(seed)
    cluster = np.array(["0"] * (n // 2) + ["1"] * (n // 3) + ["2"] * (n - n // 2 - n // 3))
    rate = np.full((n, n_genes), 0.8)
    for k in range(3):
        rate[np.ix_(cluster == str(k), range(5 * k, 5 * k + 5))] = 3.0
    counts = rng.poisson(rate)
    counts[:, -1] = 0
    x = normalise.log1p_cp10k(sparse.csr_matrix(counts.astype(np.int32)))
    return x, pd.Index([f"G{i:02d}" for i in range(n_genes)]), cluster


def test_one_versus_rest_equals_plain_formulas_and_scipy():
    x, genes, cluster = grouped()
    table = epithelium.one_versus_rest(x, genes, cluster, 1)
    assert len(table) == 3 * 39  # a gene without counts is not tested
    dense = x.toarray().astype(float)
    for name, gene in (("0", "G02"), ("1", "G07"), ("2", "G30")):
        row = table[(table["cluster"] == name) & (table["gene"] == gene)].iloc[0]
        inside, outside = dense[cluster == name, genes.get_loc(gene)], dense[cluster != name, genes.get_loc(gene)]
        found = stats.mannwhitneyu(inside, outside, method="asymptotic", use_continuity=True)
        assert row["p_value"] == pytest.approx(found.pvalue, rel=1e-6)
        middle = len(inside) * len(outside) / 2
        assert np.sign(row["z"]) == np.sign(found.statistic - middle)
        assert 2 * stats.norm.sf(abs(row["z"])) == pytest.approx(found.pvalue, rel=1e-6)
        fold = np.log2((np.expm1(inside).mean() + 1) / (np.expm1(outside).mean() + 1))
        assert row["log2_fc"] == pytest.approx(fold, rel=1e-5)
        assert row["pct_in"] == pytest.approx(100 * (inside > 0).mean())
        assert row["pct_out"] == pytest.approx(100 * (outside > 0).mean())
    assert set(table["evidence"]) == {keys.CELL_LEVEL}


def test_markers_equal_those_of_the_cohort_step():
    x, genes, cluster = grouped()
    ours = epithelium.top_markers(epithelium.one_versus_rest(x, genes, cluster, 1), 8)
    theirs = clustering.cluster_markers(x[:, :-1], genes[:-1], cluster, 8, 1)
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)


def test_rankings_hold_every_gene_and_mark_the_markers():
    x, genes, cluster = grouped()
    tested = epithelium.one_versus_rest(x, genes, cluster, 1)
    ranked = epithelium.rankings(tested)
    assert list(ranked) == ["source", "group", "contrast", "evidence", "gene", "score", "direction"]
    assert ranked.groupby("group")["gene"].nunique().tolist() == [39, 39, 39]
    for k in range(3):
        up = ranked[(ranked["group"] == str(k)) & (ranked["direction"] == "up")]
        assert set(up["gene"]) == {f"G{i:02d}" for i in range(5 * k, 5 * k + 5)}
        assert (up["score"] > 0).all()
    assert list(epithelium.rankings(pd.DataFrame())) == list(ranked)


def test_one_cluster_has_no_markers():
    x, genes, cluster = grouped()
    tested = epithelium.one_versus_rest(x, genes, np.repeat("0", len(cluster)), 1)
    assert tested.empty
    assert list(epithelium.top_markers(tested, 5)) == list(epithelium.MARKER_COLUMNS)
    assert epithelium.cluster_names(epithelium.top_markers(tested, 5), {"0": 0.1}) == {"0": "cluster 0"}


def test_names_of_clusters():
    markers = pd.DataFrame(
        {"cluster": ["0", "0", "1", "1", "2", "2", "3"], "gene": ["MT-CO1", "CST3", "TOP2A", "MKI67", "CST3", "REG1A", "RPL3"]}
    )
    cycling = {"0": 0.2, "1": 0.51, "2": 0.5, "3": np.nan}
    assert epithelium.cluster_names(markers, cycling) == {
        "0": "CST3", "1": "TOP2A cycling", "2": "CST3/REG1A", "3": "cluster 3",
    }  # fmt: skip
    same = pd.DataFrame({"cluster": ["0", "1"], "gene": ["CST3", "CST3"]})
    assert list(epithelium.cluster_names(same, {"0": 0.0, "1": 0.0}).values()) == ["CST3 0", "CST3 1"]


# --- where clusters occur


def placed(rows):
    """rows: (cluster, sample, patient, phase, n)."""
    table = pd.DataFrame([r[:4] for r in rows for _ in range(r[4])], columns=["cluster", "sample", "patient", "phase"])
    return table["cluster"].to_numpy(dtype=str), table


def test_private_exclusive_shared():
    cluster, obs = placed(
        [
            ("0", "a1", "a", "PRE", 100), ("0", "b1", "b", "POST", 100),
            ("1", "c1", "c", "PRE-R", 38), ("1", "a1", "a", "PRE", 2),  # of one patient, not of primary resistance
            ("2", "c1", "c", "PRE-R", 30), ("2", "d1", "d", "PRE-R", 27), ("2", "a1", "a", "PRE", 3),
            ("3", "c1", "c", "PRE-R", 30), ("3", "d1", "d", "PRE-R", 26), ("3", "a1", "a", "PRE", 4),
            ("3", "e1", "e", "RES", 1),
        ]
    )  # fmt: skip
    found = epithelium.occurrence(cluster, obs)
    assert found["occurrence"].tolist() == ["shared", "private", "exclusive", "shared"]
    assert found["exclusive_phase"].tolist() == ["", "", "PRE-R", ""]
    assert found["top_patient_share"].tolist() == pytest.approx([0.5, 0.95, 0.5, 30 / 61])
    assert found["top_phase_share"].tolist()[2] == pytest.approx(0.95)
    assert found["n_patients"].tolist() == [2, 2, 3, 4]
    # sample a1 has 109 cells: 2 of cluster 1 are below 5 %; e1 has one cell and is not counted
    assert found["n_samples_present"].tolist() == [2, 1, 2, 2]
    n = len(obs)
    assert found["top_phase_share_all"].tolist()[1] == pytest.approx((obs["phase"] == "PRE-R").sum() / n)


def test_composition_by_hand():
    cluster, obs = placed(
        [
            ("0", "a1", "a", "PRE", 30), ("1", "a1", "a", "PRE", 10),
            ("0", "a2", "a", "PRE", 10), ("1", "a2", "a", "PRE", 30),
            ("0", "b1", "b", "PRE", 10), ("0", "c1", "c", "POST", 5),
        ]
    )  # fmt: skip
    table = epithelium.composition(cluster, obs)
    assert list(table) == list(epithelium.COMPOSITION_COLUMNS)
    samples = table[table["level"] == "sample"]
    assert samples["share"].tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75, 1.0, 0.0, 1.0, 0.0])
    assert (samples["ci_low"] <= samples["share"]).all()
    assert (samples["share"] <= samples["ci_high"]).all()
    phases = table[table["level"] == "phase"]
    # PRE: patient a 40 of 80, b 10 of 10; the mean over patients, not over cells
    assert phases[["phase", "cluster", "share", "n_patients"]].to_numpy().tolist() == [
        ["POST", "0", 1.0, 1], ["POST", "1", 0.0, 1], ["PRE", "0", 0.75, 2], ["PRE", "1", 0.25, 2],
    ]  # fmt: skip
    assert phases["ci_low"].isna().all()
