"""Panels: the table, cell types, scores, rank tests on tables of counts, trends, clones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import comparison, io, keys, normalise, panels


def text(rows, columns=("panel", "gene", "compartment", "expected_direction", "source", "locus")):
    return pd.DataFrame(rows, columns=list(columns))


# --- the table


def test_bundled_table(root):
    table = panels.check_panels(io.read_tsv(root / "assets" / "panels.tsv", dtype=str), "panels.tsv")
    assert set(table["panel"]) == {"adc", "checkpoint", "drivers", "mhc_1", "mhc_2"}
    # methods.md, TRACK_PANELS
    wanted = {
        "checkpoint": "PDCD1 LAG3 TIGIT CTLA4 HAVCR2 CD274",
        "mhc_1": "HLA-A HLA-B HLA-C HLA-E HLA-F HLA-G B2M TAP1 TAP2 TAPBP PSMB8 PSMB9 NLRC5",
        "mhc_2": "HLA-DRA HLA-DRB1 HLA-DRB5 HLA-DPA1 HLA-DPB1 HLA-DQA1 HLA-DQB1 HLA-DMA HLA-DMB HLA-DOA HLA-DOB CD74 CIITA",
        "adc": "ERBB2 CST3 CTSB CTSS MKI67 TOP2A TOP1 SLC46A3 ABCB1 ABCC1 ABCG2 MUC3A MUC17 YAP1 BCL2L1 CDK1",
    }
    for panel, genes in wanted.items():
        assert set(table.loc[table["panel"] == panel, "gene"]) == set(genes.split())
    loci = set(table.loc[table["locus"] == "yes", "gene"])
    assert {"ERBB2", "CST3", "MUC3A", "MKI67", "EGFR", "MET", "MYC", "CCNE1", "CD274"} <= loci
    assert (table["source"] != "").all()
    positions = pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t")
    assert set(table["gene"]) <= set(positions["symbol"])
    assert set(table["compartment"].str.split(",").explode()) <= set(panels.COMPARTMENTS)


def test_all_faults_of_a_table_at_once():
    table = text(
        [
            ("a b", "G1", "tumour", "up", "", ""),
            ("p", "", "tumour", "", "", ""),
            ("p", "set_score", "tumour", "", "", ""),
            ("p", "G2", "", "", "", ""),
            ("p", "G3", "tumour", "rising", "", "perhaps"),
            ("p", "G4", "tumour", "", "", ""),
            ("p", "G4", "immune", "", "", ""),
        ]
    )
    with pytest.raises(io.InputError) as error:
        panels.check_panels(table, "mine.tsv")
    message = str(error.value)
    for part in (
        "mine.tsv", "row 2: panel 'a b'", "row 3: gene is empty", "row 4: gene 'set_score'", "row 5: compartment is empty",
        "row 6: expected_direction 'rising'", "row 6: locus 'perhaps'", "p G4 stands 2 times",
    ):  # fmt: skip
        assert part in message
    with pytest.raises(io.InputError, match="no column gene; expected panel, gene, compartment, found panel, compartment"):
        panels.check_panels(pd.DataFrame({"panel": ["p"], "compartment": ["all"]}), "x.tsv")


def test_a_table_of_three_columns_is_enough():
    made = panels.check_panels(text([("p", "B", "all"), ("p", "A", " tumour ")], ("panel", "gene", "compartment")), "x")
    assert made["gene"].tolist() == ["A", "B"]
    assert made["compartment"].tolist() == ["tumour", "all"]
    assert made["locus"].tolist() == ["", ""]


# --- cell types

MAIN = ["CD8_T", "CD4_T", "B", "Mast", "Macrophage", "DC", "Epithelial", "Goblet", "Fibroblast", "unresolved", None]
LINE = ["immune"] * 6 + ["epithelial"] * 2 + ["stromal", "immune", None]


def test_masks_and_compartments():
    masks = panels.type_masks(MAIN, LINE, np.array(MAIN, dtype=object) == "Goblet")
    held = {name: [MAIN[i] for i in np.flatnonzero(mask)] for name, mask in masks.items()}
    assert held["tumour"] == ["Goblet"]
    assert held["t_cell"] == ["CD8_T", "CD4_T"]
    assert held["myeloid"] == ["Macrophage", "DC"]
    assert held["immune"] == ["CD8_T", "CD4_T", "B", "Mast", "Macrophage", "DC", "unresolved"]
    assert held["stromal"] == ["Fibroblast"]
    assert "unresolved" not in masks
    assert panels.types_of("tumour,myeloid", masks) == ["tumour", "myeloid", "DC", "Macrophage"]
    assert panels.types_of("stromal", masks) == ["stromal"]  # one main type: the pooled one is enough
    assert panels.types_of("t_cell", masks) == ["t_cell", "CD4_T", "CD8_T"]
    assert panels.types_of("Mast", masks) == ["Mast"]
    assert panels.types_of("Nobody", masks) == []
    every = ["tumour", "B", "CD4_T", "CD8_T", "DC", "Epithelial", "Fibroblast", "Goblet", "Macrophage", "Mast"]
    assert panels.types_of("all", masks) == every
    table = panels.check_panels(text([("p", "G", "tumour,Nobody", "", "", ""), ("p", "H", "t_cell", "", "", "")]), "x")
    assert panels.unknown_compartments(table, masks) == ["Nobody"]
    assert panels.plan(table, masks) == [
        ("p", "G", "tumour"), ("p", "H", "t_cell"), ("p", "H", "CD4_T"), ("p", "H", "CD8_T"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "is_t"),
    [("T", True), ("CD4 T cell", True), ("gd_T", True), ("Treg", True), ("Mast", False), ("Tumor", False), ("NKT", False)],
)  # fmt: skip
def test_names_of_t_cells(label, is_t):
    assert panels.type_masks([label], ["immune"], np.array([False]))["t_cell"][0] == is_t
    assert not panels.type_masks([label], ["stromal"], np.array([False]))["t_cell"][0]


@pytest.mark.parametrize(("label", "yes"), [("cDC1", True), ("pDC", True), ("Neutrophil", True), ("ADCC", False)])
def test_names_of_myeloid_cells(label, yes):
    assert panels.type_masks([label], ["immune"], np.array([False]))["myeloid"][0] == yes


# --- scores


def expression(n_cells=400, n_genes=1500, seed=0):
    """Counts with gene means over three decades and a program in half of the cells; log values and names."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(-1.0, 1.5, n_genes))
    rate = np.tile(mean, (n_cells, 1)) * rng.lognormal(0, 0.3, (n_cells, 1))
    program = rng.choice(n_genes, 40, replace=False)
    rate[np.ix_(np.arange(n_cells // 2), program)] *= 2.0
    counts = sparse.csr_matrix(rng.poisson(rate).astype(np.int32))
    names = [f"G{i:04d}" for i in range(n_genes)]
    return normalise.log1p_cp10k(counts), names, [names[i] for i in sorted(program)]


def plain_score(x, names, chosen, controls):
    x = x.toarray().astype(float)
    at = [names.index(g) for g in chosen]
    return x[:, at].mean(axis=1) - x[:, controls].mean(axis=1)


def test_score_with_every_gene_of_the_bin_as_control():
    """With ctrl_size as large as a bin nothing is drawn: the controls follow from the ranks alone."""
    x, names, program = expression(60, 240)
    mean = x.toarray().astype(float).mean(axis=0)
    per_bin = round(240 / 24)
    rank = np.array([1 + (mean < m).sum() for m in mean])
    bins = rank // per_bin
    mine = [names.index(g) for g in program]
    controls = [i for i in range(240) if bins[i] in set(bins[mine]) and i not in mine]
    found = panels.score_genes(x, names, program, seed=3, ctrl_size=240)
    assert found == pytest.approx(plain_score(x, names, program, controls), abs=1e-9)


def test_score_equals_scanpy_up_to_the_draw_of_controls():
    import anndata
    import scanpy as sc

    x, names, program = expression()
    stock = anndata.AnnData(x.copy(), var=pd.DataFrame(index=names))
    for size in (8, 40):
        chosen = program[:size]
        sc.tl.score_genes(stock, chosen, ctrl_size=50, n_bins=25, random_state=1)
        ours = panels.score_genes(x, names, chosen, seed=1)
        assert np.corrcoef(ours, stock.obs["score"])[0, 1] >= 0.99


def test_score_without_genes_or_controls_is_missing():
    x, names, program = expression(20, 60)
    assert np.isnan(panels.score_genes(x, names, ["NOPE"], 1)).all()
    assert np.isnan(panels.score_genes(x, names, names, 1)).all()  # every gene is in the set
    assert (
        panels.score_genes(x, names, program[:3], 1).tolist() == panels.score_genes(x, names, [*program[:3], "NOPE"], 1).tolist()
    )


def test_score_is_independent_of_the_order_of_cells():
    x, names, program = expression(200, 600)
    order = np.random.default_rng(5).permutation(200)
    assert panels.score_genes(x[order], names, program, 7) == pytest.approx(
        panels.score_genes(x, names, program, 7)[order], abs=1e-12
    )


@pytest.mark.real
def test_score_on_real_cells_equals_scanpy(shared_data):
    import anndata
    import scanpy as sc

    adata = anndata.read_h5ad(shared_data / "kang_ifnb" / "harmony_pbmc_stim_2000x9015.h5ad")
    counts = sparse.csr_matrix(adata.layers.get("counts", adata.X))
    x = normalise.log1p_cp10k(counts)
    names = list(adata.var_names)
    genes = [g for g in ["HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1", "HLA-DQA1", "HLA-DMA", "CD74", "CIITA"] if g in names]
    stock = anndata.AnnData(x.copy(), var=pd.DataFrame(index=names))
    sc.tl.score_genes(stock, genes, random_state=1)
    assert np.corrcoef(panels.score_genes(x, names, genes, 1), stock.obs["score"])[0, 1] >= 0.97


# --- values per sample


def test_values_per_sample_by_hand():
    counts = np.array([[0, 2, 8], [1, 0, 9], [4, 0, 6], [0, 0, 0], [5, 5, 0]])
    x = np.log1p(np.divide(1e4 * counts, np.maximum(counts.sum(1, keepdims=True), 1)))
    samples = np.array(["A", "A", "B", "B", "A"])
    mask = np.array([True, True, True, True, False])
    found = panels.sample_values(
        sparse.csc_matrix(x[:, :2]), sparse.csc_matrix(counts[:, :2]), counts.sum(1).astype(float), samples, ["B", "A", "C"], mask
    )
    assert found["n_cells"].tolist() == [2, 2, 0]
    assert found["pct"][:2].tolist() == [[50.0, 0.0], [50.0, 50.0]]
    assert found["mean"][1] == pytest.approx([np.log1p(1e3) / 2, np.log1p(2e3) / 2])
    assert found["cp10k"][:2] == pytest.approx(np.array([[4e3, 0.0], [1e4 * 1 / 20, 1e4 * 2 / 20]]))
    assert all(np.isnan(found[name][2]).all() for name in ("pct", "mean", "cp10k"))


# --- rank tests


def test_cell_tests_equal_scipy_and_posthocs():
    import scikit_posthocs

    rng = np.random.default_rng(1)
    group = rng.integers(0, 3, 150)
    values = np.round(rng.gamma(1.0, 1.0, 150) + 0.3 * group, 1)
    values[rng.random(150) < 0.4] = 0.0  # ties, as drop-out makes them
    found = panels.cell_tests(values, group, ["PRE", "RES", "POST"], np.empty((0, 0), dtype=int))
    stock = stats.kruskal(*[values[group == g] for g in range(3)])
    assert found["h"] == pytest.approx(stock.statistic, rel=1e-12)
    assert found["p"] == pytest.approx(stock.pvalue, rel=1e-10)
    assert found["epsilon_squared"] == pytest.approx(stock.statistic / 149)
    dunn = scikit_posthocs.posthoc_dunn(pd.DataFrame({"v": values, "g": group}), val_col="v", group_col="g")
    names = {"PRE": 0, "RES": 1, "POST": 2}
    for b, a, z, p, _, difference in found["pairs"]:
        assert p == pytest.approx(dunn.loc[names[a], names[b]], rel=1e-9)
        assert difference == pytest.approx(values[group == names[a]].mean() - values[group == names[b]].mean())
        assert z * difference > 0 or abs(z) < 1
    kernel = comparison.dunn({n: values[group == g] for n, g in names.items()})
    assert [pair[2] for pair in found["pairs"]] == pytest.approx(kernel["z"].tolist())


def test_draws_of_equal_numbers():
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1, 2], [400, 60, 25])
    values = rng.gamma(1.0, 1.0, len(group)) + 0.8 * (group == 2)
    draws = panels.equal_draws(group, 3, 20, seed=4)
    assert draws.shape == (20, 75)
    for draw in draws:
        assert np.bincount(group[draw]).tolist() == [25, 25, 25]
        assert len(set(draw)) == 75
    found = panels.cell_tests(values, group, list("abc"), draws)
    plain = [stats.kruskal(*[values[d[group[d] == g]] for g in range(3)]).pvalue for d in draws]
    assert found["p_equal"] == pytest.approx(np.median(plain), rel=1e-9)
    assert found["p_equal"] > found["p"]
    tables = [comparison.dunn({n: values[d[group[d] == g]] for g, n in enumerate("abc")})["p_value"] for d in draws]
    assert [pair[4] for pair in found["pairs"]] == pytest.approx(np.median(tables, axis=0), rel=1e-9)


def test_constant_values_have_no_p():
    group = np.array([0, 0, 1, 1])
    found = panels.cell_tests(np.zeros(4), group, ["a", "b"], panels.equal_draws(group, 2, 5, 1))
    assert np.isnan([found["h"], found["p"], found["p_equal"], found["pairs"][0][2]]).all()
    rows = panels.cell_rows(np.zeros(4), group, ["a", "b"], np.empty((0, 0), int), np.array(list("pppq")), np.array(list("sstt")))
    assert [(row["status"], row["reason"]) for row in rows] == [(keys.NOT_ESTIMABLE, "all values are equal")]


def test_rows_of_cells_name_their_unit_and_direction():
    group, values = np.repeat([0, 1], 30), np.concatenate([np.arange(30.0), np.arange(30.0) + 20])
    patients, samples = np.repeat(["p", "q", "r"], 20), np.repeat(["s", "t", "u", "v"], 15)
    rows = panels.cell_rows(values, group, ["PRE", "POST"], panels.equal_draws(group, 2, 3, 1), patients, samples)
    assert [(row["contrast"], row["test"]) for row in rows] == [("phases", "kruskal_wallis"), ("POST_vs_PRE", "dunn")]
    assert all(row["evidence"] == keys.CELL_LEVEL and row["unit"] == "cell" for row in rows)
    assert rows[0]["groups"] == "PRE=30;POST=30"
    assert rows[1]["effect"] == pytest.approx(20.0)
    assert rows[1]["statistic"] > 0
    assert [rows[1][n] for n in ("n_a", "n_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b")] == [2, 2, 2, 2, 30, 30]
    assert rows[0]["n_equal_cells"] == 30


def by_phase(**values):
    return {
        phase: pd.DataFrame({"value": v, "weight": 30.0, "n_samples": 1}, index=pd.Index(list(names), name="patient"))
        for phase, (names, v) in values.items()
    }


def test_kruskal_between_patients():
    values = by_phase(PRE=("abc", [1.0, 2.0, 3.0]), RES=("def", [4.0, 5.0, 6.0]), POST=("ghi", [7.0, 8.0, 9.0]), ONE=("j", [0.0]))
    rows = panels.patient_kruskal(values)
    # H of three groups in perfect order, n = 3 each: 7.2 (Kruskal and Wallis 1952); p = exp(-3.6)
    assert rows[0]["statistic"] == pytest.approx(7.2)
    assert rows[0]["p_value"] == pytest.approx(np.exp(-3.6))
    assert rows[0]["effect"] == pytest.approx(7.2 / 8)
    assert rows[0]["groups"] == "PRE=3;RES=3;POST=3;ONE=1"
    assert (rows[0]["status"], rows[0]["evidence"]) == (keys.OK, keys.REPLICATED)
    assert [row["contrast"] for row in rows[1:]] == ["RES_vs_PRE", "POST_vs_PRE", "POST_vs_RES"]
    # mean ranks 2, 5, 8, s2 = 7.5: z = 6 / sqrt(7.5 * 2/3)
    assert rows[2]["statistic"] == pytest.approx(6 / np.sqrt(5))
    assert rows[2]["effect"] == pytest.approx(6.0)
    again = panels.patient_kruskal(by_phase(PRE=("abc", [1.0, 2, 3]), RES=("abc", [4.0, 5, 6]), POST=("abc", [7.0, 8, 9])))
    assert again[0]["status"] == keys.WARNING
    assert "patients repeat" in again[0]["reason"]
    few = panels.patient_kruskal(by_phase(PRE=("ab", [1.0, 2]), RES=("c", [4.0]), POST=("d", [7.0])))
    assert [(row["status"], row["evidence"]) for row in few] == [(keys.NO_REPLICATES, keys.SINGLE_PATIENT)]
    assert np.isnan(few[0]["p_value"])
    flat = panels.patient_kruskal(by_phase(PRE=("ab", [1.0, 1]), RES=("cd", [1.0, 1]), POST=("ef", [1.0, 1])))
    assert [row["status"] for row in flat] == [keys.NOT_ESTIMABLE]
    assert panels.patient_kruskal(by_phase(PRE=("ab", [1.0, 2]), RES=("cd", [1.0, 2]))) == []


def test_adjustment_stays_within_panel_measure_unit_and_contrast():
    def row(panel, measure, unit, test, p, q=np.nan):
        made = {"panel": panel, "gene": "G", "cell_type": "t", "measure": measure, **panels.blank("c", unit, test)}
        return {**made, "p_value": p, "p_adjusted": q, "adjust_method": "BH:pairs" if test == "dunn" else ""}

    rows = [
        row("x", "mean", "patient", "rank_sum_exact", 0.01),
        row("x", "mean", "patient", "rank_sum_normal", 0.02),  # the same test with ties
        row("x", "mean", "patient", "rank_sum_exact", np.nan),
        row("x", "pct", "patient", "rank_sum_exact", 0.03),
        row("x", "mean", "cell", "kruskal_wallis", 0.04),
        row("y", "mean", "patient", "rank_sum_exact", 0.05),
        row("x", "mean", "cell", "dunn", 0.001, 0.003),
    ]
    table = panels.adjust_tests(rows)
    assert list(table) == list(panels.TEST_COLUMNS)
    assert table["p_adjusted"].tolist()[:2] == pytest.approx([0.02, 0.02])
    assert np.isnan(table["p_adjusted"][2])
    assert table["p_adjusted"].tolist()[3:] == pytest.approx([0.03, 0.04, 0.05, 0.003])
    assert set(table["adjust_method"]) == {"BH:genes x cell types of the panel", "BH:pairs"}
    assert list(panels.adjust_tests([])) == list(panels.TEST_COLUMNS)


@pytest.mark.real
def test_melanoma_t_cells_between_patients(shared_data):
    """19 patients before anti-PD1 (GSE120575), log values: the figures of the rank-sum on patient means.

    The published p are those of the normal approximation; the exact null of the kernel gives the same reading.
    """
    import anndata

    adata = anndata.read_h5ad(shared_data / "sade_feldman_mel" / "sade_3523x550.h5ad")
    x = sparse.csc_matrix(adata.X)
    patients = adata.obs["patient"].astype(str).to_numpy()
    names = sorted(set(patients))
    side = dict(zip(patients, adata.obs["condition"].astype(str), strict=True))
    responder = tuple(n for n in names if side[n] == "Responder")
    other = tuple(n for n in names if side[n] != "Responder")
    assert (len(responder), len(other)) == (9, 10)
    contrast = comparison.Contrast("N_vs_R", other, responder, False, keys.OK, "", "declared")
    genes = ["PDCD1", "HAVCR2", "TGFBR2"]
    at = adata.var_names.get_indexer(genes)
    ones = np.ones(adata.n_obs)
    found = panels.sample_values(x[:, at], x[:, at], ones, patients, names, ones.astype(bool))
    cells = pd.Series(found["n_cells"], index=names)
    group = np.array([side[p] != "Responder" for p in patients], dtype=int)
    for i, (published, per_cell) in enumerate([(0.025, 1e-8), (0.013, 1e-8), (0.18, 1.0)]):
        values = pd.Series(found["mean"][:, i], index=names)
        normal = stats.mannwhitneyu(values[list(other)], values[list(responder)], method="asymptotic").pvalue
        assert normal == pytest.approx(published, abs=0.0051 if published > 0.1 else 0.00051)
        row = comparison.compare(values, cells, contrast, {n: n for n in names})
        assert row["p_value"] == pytest.approx(published, abs=0.005)
        assert row["evidence"] == keys.REPLICATED
        column = x[:, at[i]].toarray().ravel()
        assert panels.cell_tests(column, group, ["R", "N"], np.empty((0, 0), int))["p"] < per_cell
    assert found["mean"][:, 0][[n in other for n in names]].mean() > found["mean"][:, 0][[n in responder for n in names]].mean()


@pytest.mark.real
def test_skin_samples_means(shared_data):
    """Means of CD3E and MKI67 over all 300 barcodes of each skin (README of the data)."""
    from scipy.io import mmread

    means = {"CD3E": [], "MKI67": []}
    for name in ("CTCL-5", "CTCL-6", "CTCL-8", "HC-1", "HC-2", "HC-3"):
        folder = shared_data / "ctcl_gse128531" / "10x" / name
        file = next(p for p in sorted(folder.iterdir()) if p.name.startswith("matrix"))
        counts = sparse.csr_matrix(mmread(file)).T.tocsr()
        genes = next(p for p in sorted(folder.iterdir()) if p.name.startswith(("genes", "features")))
        symbols = pd.read_csv(genes, sep="\t", header=None)[1].tolist()
        x = normalise.log1p_cp10k(counts)
        at = [symbols.index(g) for g in means]
        totals = np.asarray(counts.sum(axis=1)).ravel().astype(float)
        samples = np.repeat(name, counts.shape[0])
        found = panels.sample_values(
            x.tocsc()[:, at], counts.tocsc()[:, at], totals, samples, [name], np.ones(counts.shape[0], bool)
        )
        for gene, value in zip(means, found["mean"][0], strict=True):
            means[gene].append(round(float(value), 2))
    assert means["CD3E"] == pytest.approx([0.61, 0.36, 0.05, 0.01, 0.03, 0.00], abs=0.0051)
    assert means["MKI67"] == pytest.approx([0.16, 0.11, 0.09, 0.02, 0.00, 0.01], abs=0.0051)


# --- trend and clones


@pytest.mark.parametrize(
    ("values", "word"),
    [([1, 2, 3], "up"), ([3, 2, 2], "down"), ([2, 1, 3], "down-up"), ([1, 1, 1], "flat"), ([1, 3, 2, 4], "up-down-up")],
)  # fmt: skip
def test_pattern(values, word):
    assert panels.pattern(values) == word


def test_trend_needs_three_ordered_phases():
    samples = pd.DataFrame(
        {
            "sample": ["a1", "a2", "a3", "a4", "b1", "b2", "b3"],
            "patient": ["a", "a", "a", "a", "b", "b", "b"],
            "phase": ["PRE", "RES", "POST", "POST", "PRE", "RES", "PRE-R"],
        }
    )
    values = pd.Series([2.0, 1.0, 3.0, 5.0, 1.0, 2.0, 9.0], index=samples["sample"])
    cells = pd.Series([30, 30, 30, 10, 30, 30, 30], index=samples["sample"])
    times = {"PRE": 0.0, "RES": 1.0, "POST": 2.0}
    found = panels.patient_trends(values, cells, samples, times)
    # POST of patient a: (3 x 30 + 5 x 10) / 40; b has two ordered phases, PRE-R lies beside the axis
    assert found == [{"patient": "a", "phases": "PRE,RES,POST", "values": "2,1,3.5", "pattern": "down-up"}]
    assert panels.patient_trends(values.where(values != 1.0), cells, samples, times) == []


def test_clones_beside_expression():
    cells = [f"c{i}" for i in range(6)]
    x = pd.DataFrame({"ERBB2": [1.0, 3, 0, 0, 0, 5]}, index=cells)
    tables = pd.DataFrame(
        {
            "patient": ["P", "P", "P"],
            "clone": ["P.C2", "P.C1", "P.C3"],
            "locus_ERBB2": [-0.3, 0.2, np.nan],
            "locus_MYC": [0.0, 0.05, 0.1],
        }
    )
    clone = pd.Series(["P.C1", "P.C1", "P.C2", "P.C2"], index=cells[:4])
    found = panels.clone_rows(tables, clone, x, x > 0, ["ERBB2", "MYC"], 0.1)
    assert list(found) == list(panels.CLONE_COLUMNS)
    assert found["clone"].tolist() == ["P.C1", "P.C1", "P.C2", "P.C2", "P.C3", "P.C3"]
    assert found["locus_call"].tolist() == ["gain", "neutral", "loss", "neutral", "", "gain"]
    assert found["n_cells"].tolist() == [2, 2, 2, 2, 0, 0]
    assert found["mean"].tolist() == pytest.approx([2.0, np.nan, 0.0, np.nan, np.nan, np.nan], nan_ok=True)
    assert found["pct"].tolist() == pytest.approx([100.0, np.nan, 0.0, np.nan, np.nan, np.nan], nan_ok=True)
