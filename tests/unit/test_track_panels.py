"""TRACK_PANELS through its command line."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import comparison, design, io, keys, normalise, panels

PHASES = ("PRE", "RES", "POST", "PRE-R")
TABLES = ("panel_values.tsv", "panel_tests.tsv", "panel_trend.tsv", "panel_clones.tsv")
NAMED = ["CD274", "CST3", "ERBB2", "HLA-A", "HLA-B", "LAG3", "MUC3A", "PDCD1"]
# fold of the gene's mean per phase, in the cells that carry it
PLANTED = {
    ("CST3", "Epithelial"): {"PRE": 1.0, "RES": 1.7, "POST": 3.0, "PRE-R": 1.0},
    ("ERBB2", "Epithelial"): {"PRE": 3.0, "RES": 1.6, "POST": 0.8, "PRE-R": 3.0},
    ("PDCD1", "CD8_T"): {"PRE": 1.2, "RES": 0.4, "POST": 2.5, "PRE-R": 1.2},
}


def cohort(n_patients=3, n_cells=30, n_plain=600, seed=0, phases=PHASES):
    """n_patients with PRE, RES and POST each and, where asked, two more with PRE-R; three types of n_cells each per sample."""
    rng = np.random.default_rng(seed)
    genes = sorted([*NAMED, *(f"GENE{i:04d}" for i in range(n_plain))])
    base = np.random.default_rng(1).gamma(1.0, 1.0, len(genes))
    rows, blocks = [], []
    pairs = [(f"P{i + 1}", phase) for i in range(n_patients) for phase in phases if phase != "PRE-R"]
    pairs += [(f"R{i + 1}", "PRE-R") for i in range(2) if "PRE-R" in phases]
    for patient, phase in pairs:
        sample = f"{patient}-{phase}"
        for kind, lineage in (("Epithelial", "epithelial"), ("CD8_T", "immune"), ("Macrophage", "immune")):
            mean = base.copy()
            mean[[genes.index(g) for g in NAMED]] = 1.0
            for (gene, carrier), fold in PLANTED.items():
                mean[genes.index(gene)] = fold[phase] if carrier == kind else 0.02
            blocks.append(rng.poisson(mean * rng.lognormal(0, 0.2, (n_cells, 1))))
            rows += [(f"{sample}:{kind}{i:03d}", sample, patient, phase, kind, lineage) for i in range(n_cells)]
    obs = pd.DataFrame(rows, columns=["cell", "sample", "patient", "phase", "main_type", "lineage"]).set_index("cell")
    obs["batch"] = "none"
    order = np.argsort(obs.index.to_numpy(dtype=str))
    counts = sparse.csr_matrix(np.vstack(blocks).astype(np.int32))[order]
    made = anndata.AnnData(normalise.log1p_cp10k(counts), obs=obs.iloc[order], var=pd.DataFrame(index=genes))
    made.layers[keys.COUNTS] = counts
    made.uns[keys.UNS] = {}
    return made


PANELS = pd.DataFrame(
    [
        ("adc", "CST3", "tumour", "up", "x", "no"),
        ("adc", "ERBB2", "tumour", "down", "x", "yes"),
        ("adc", "MUC17", "tumour", "", "x", "no"),
        ("checkpoint", "CD274", "tumour,myeloid", "", "x", "yes"),
        ("checkpoint", "LAG3", "t_cell", "", "x", "no"),
        ("checkpoint", "PDCD1", "t_cell", "down-up", "x", "no"),
        ("mhc_1", "HLA-A", "all", "", "x", "no"),
        ("mhc_1", "HLA-B", "all", "", "x", "no"),
    ],
    columns=["panel", "gene", "compartment", "expected_direction", "source", "locus"],
)


@pytest.fixture
def inputs(tmp_path):
    """Write all inputs of a cohort; returns a function for the options."""

    def write(merged, table=PANELS, tumour=True, clones=True, min_replicates=2):
        merged.write_h5ad(tmp_path / "merged.h5ad")
        obs = merged.obs.astype(str).reset_index(names="cell").sample(frac=1, random_state=0)  # joined by cell, not by place
        io.write_fragment(obs[["cell", "main_type", "lineage"]], tmp_path / "annotation.parquet")
        samples = obs[["sample", "patient", "phase"]].drop_duplicates().sort_values("sample")
        io.write_tsv(samples, tmp_path / "samples.tsv")
        phases = pd.DataFrame(
            {
                "phase": PHASES, "name": PHASES, "order": [1, 2, 3, 4], "time": [0.0, 1.0, 2.0, np.nan],
                "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED, keys.ROLE_PRIMARY],
            }
        )  # fmt: skip
        io.write_tsv(phases, tmp_path / "phases.tsv")
        contrasts = design.contrast_table(design.default_contrasts(samples, phases), samples, "auto", min_replicates)
        io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
        io.write_tsv(table, tmp_path / "panels.tsv")
        options = ["--input", "merged.h5ad", "--annotation", "annotation.parquet", "--panels", "panels.tsv"]
        options += ["--contrasts", "contrasts.tsv", "--samples", "samples.tsv", "--phases", "phases.tsv", "--n_draws", "10"]
        epithelial = obs[obs["lineage"] == "epithelial"].sort_values("cell")
        if tumour:
            paths = []
            for patient, part in epithelial.groupby("patient"):
                paths.append(f"{patient}.malignant.parquet")
                io.write_fragment(pd.DataFrame({"cell": part["cell"], "tumour": True}), tmp_path / paths[-1])
            options += ["--tumour", *paths]
        if clones:
            p1 = epithelial[epithelial["patient"] == epithelial["patient"].min()]
            half = np.where(np.arange(len(p1)) % 3 == 0, "P1.C2", "P1.C1")
            io.write_fragment(pd.DataFrame({"cell": p1["cell"], "clone": half}), tmp_path / "P1.clones.parquet")
            made = pd.DataFrame(
                {
                    "patient": "P1",
                    "clone": ["P1.C1", "P1.C2"],
                    "n_cells": 1,
                    "locus_ERBB2": [0.4, -0.2],
                    "locus_MUC3A": [0.0, 0.0],
                }
            )
            io.write_tsv(made, tmp_path / "P1.clones.tsv")
            options += ["--clones", "P1.clones.parquet", "--clone_tables", "P1.clones.tsv"]
        return options

    return write


@pytest.fixture
def within(script_main):
    return script_main("track_panels")


def read(folder, name):
    text = dict.fromkeys(
        ("panel", "gene", "cell_type", "sample", "patient", "phase", "contrast", "status", "reason", "clone"), str
    )
    return io.read_tsv(folder / name, dtype=text)


def test_planted_trends_and_equal_bytes(run_script, inputs, tmp_path):
    merged = cohort()
    options = inputs(merged)
    done = run_script("track_panels", *options, cwd=tmp_path)
    assert done.stderr == ""
    names = (*TABLES, "track_panels.cohort.status.tsv", "track_panels.cohort.provenance.json")
    first = [(tmp_path / name).read_bytes() for name in names]
    # another order of cells in the merged file, of the files of the patients and of the rows of the panels
    shuffled = merged[np.random.default_rng(9).permutation(merged.n_obs)].copy()
    shuffled.write_h5ad(tmp_path / "merged.h5ad")
    at = options.index("--tumour")
    options[at + 1 : at + 6] = options[at + 1 : at + 6][::-1]
    io.write_tsv(PANELS.iloc[::-1], tmp_path / "panels.tsv")
    run_script("track_panels", *options, "--threads", "1", cwd=tmp_path)
    again = [(tmp_path / name).read_bytes() for name in names]
    assert first[:5] == again[:5]

    trend = read(tmp_path, "panel_trend.tsv")
    assert list(trend) == list(panels.TREND_COLUMNS)
    assert (trend["phases"] == "PRE,RES,POST").all()  # PRE-R is never on the axis
    for gene, cell_type, word in (("CST3", "tumour", "up"), ("ERBB2", "tumour", "down"), ("PDCD1", "t_cell", "down-up")):
        mine = trend[(trend["gene"] == gene) & (trend["cell_type"] == cell_type)]
        assert mine["patient"].tolist() == ["P1", "P2", "P3"]
        assert mine["pattern"].tolist() == [word] * 3
        assert mine["as_expected"].tolist() == ["yes"] * 3

    values = read(tmp_path, "panel_values.tsv")
    assert list(values) == list(panels.VALUE_COLUMNS)
    assert not values.duplicated(["panel", "gene", "cell_type", "sample"]).any()
    one = values[(values["gene"] == "CST3") & (values["sample"] == "P2-POST")].iloc[0]
    rows = (merged.obs["sample"] == "P2-POST") & (merged.obs["main_type"] == "Epithelial")
    column = merged.layers[keys.COUNTS][rows.to_numpy()][:, merged.var_names.get_loc("CST3")].toarray().ravel()
    total = merged.layers[keys.COUNTS][rows.to_numpy()].sum()
    assert one["n_cells"] == 30
    assert one["pct"] == pytest.approx(100 * (column > 0).mean(), rel=1e-5)
    assert one["cp10k"] == pytest.approx(1e4 * column.sum() / total, rel=1e-5)
    assert one["mean"] == pytest.approx(merged.X[rows.to_numpy()][:, merged.var_names.get_loc("CST3")].mean(), rel=1e-5)
    absent = values[values["gene"] == "MUC17"]
    assert set(absent["reason"]) == {"gene_absent"}
    assert absent["mean"].isna().all()
    sets = values[values["gene"].isin(["set_score", "set_mean"])]
    # two genes are a set; PD-L1 alone is none, and neither is the tumour part of the checkpoint panel
    assert set(sets["panel"] + " " + sets["cell_type"]) == {
        "adc tumour", "checkpoint t_cell", *(f"mhc_1 {t}" for t in ("tumour", "CD8_T", "Epithelial", "Macrophage")),
    }  # fmt: skip
    assert sets["mean"].notna().all()
    assert sets["pct"].isna().all()

    tests = read(tmp_path, "panel_tests.tsv")
    assert list(tests) == list(panels.TEST_COLUMNS)
    assert set(comparison.TEST_COLUMNS) < set(tests)
    mine = tests[(tests["gene"] == "CST3") & (tests["measure"] == "mean") & (tests["contrast"] == "POST_vs_PRE")]
    assert mine["unit"].tolist() == ["patient", "patient", "cell"]
    assert (mine["effect"] > 0).all()
    between = mine.iloc[0]
    assert between["test"] == "signed_rank_exact"  # three pairs
    assert between["p_value"] == pytest.approx(0.25)
    assert between["p_min_attainable"] == pytest.approx(0.25)
    assert between["evidence"] == "replicated"
    assert mine.iloc[2]["evidence"] == "cell_level"
    assert mine.iloc[2]["p_value"] < 1e-4
    over = tests[(tests["gene"] == "ERBB2") & (tests["contrast"] == "phases")]
    assert over["unit"].tolist() == ["patient", "patient", "cell"]
    assert over["measure"].tolist() == ["pct", "mean", "mean"]
    cells = over.iloc[2]
    assert cells["groups"] == "PRE=90;RES=90;POST=90;PRE-R=60"
    assert cells["n_equal_cells"] == 60
    assert cells["p_value"] <= cells["p_equal_cells"] < 0.01
    assert cells["p_adjusted"] >= cells["p_value"]
    primary = tests[(tests["contrast"] == "PRE-R_vs_PRE") & (tests["gene"] == "HLA-A") & (tests["unit"] == "patient")]
    assert primary["p_min_attainable"].dropna().tolist() == pytest.approx(
        [0.2] * (len(primary) - primary["test"].eq("dunn").sum())
    )
    gone = tests[tests["gene"] == "MUC17"]
    assert set(gone["status"]) == {keys.NOT_ESTIMABLE}
    assert set(gone["reason"]) == {"gene_absent"}
    assert gone[["effect", "p_value", "p_adjusted"]].isna().all(axis=None)

    clones = read(tmp_path, "panel_clones.tsv")
    assert clones[["clone", "gene", "locus_call"]].fillna("").to_numpy().tolist() == [
        ["P1.C1", "CD274", ""], ["P1.C1", "ERBB2", "gain"], ["P1.C2", "CD274", ""], ["P1.C2", "ERBB2", "loss"],
    ]  # fmt: skip
    assert clones["n_cells"].tolist() == [60, 60, 30, 30]
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert status["status"].tolist() == ["warning"]
    assert status["reason"].tolist() == ["1 of 8 genes were not measured: MUC17"]
    assert "over 4 phases" in status["sentence"][0]
    made = json.loads((tmp_path / "track_panels.cohort.provenance.json").read_text())
    assert made["parameters"]["min_cells"] == 20


def test_all_genes_measured_is_ok(within, inputs, tmp_path):
    options = inputs(cohort(2, phases=("PRE", "POST")), PANELS[PANELS["gene"] != "MUC17"])
    assert within(*options) == 0
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert status[["status", "reason"]].fillna("").to_numpy().tolist() == [["ok", ""]]
    assert len(read(tmp_path, "panel_trend.tsv")) == 0
    assert "kruskal_wallis" not in set(read(tmp_path, "panel_tests.tsv").query("unit == 'patient'")["test"])


def test_small_matrix_gives_plain_means(within, inputs, tmp_path):
    options = inputs(cohort(2, n_plain=100, phases=("PRE", "POST")), PANELS[PANELS["gene"] != "MUC17"], clones=False)
    assert within(*options) == 0
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert status["status"].tolist() == ["warning"]
    assert "108 genes, 500 needed for scores with control genes: sets are plain means" in status["reason"][0]
    values = read(tmp_path, "panel_values.tsv")
    assert "set_score" not in set(values["gene"])
    assert "set_mean" in set(read(tmp_path, "panel_tests.tsv")["gene"])
    assert (tmp_path / "panel_clones.tsv").read_text() == "\t".join(panels.CLONE_COLUMNS) + "\n"


def test_one_phase_is_not_estimable(within, inputs, tmp_path):
    options = inputs(cohort(2, phases=("PRE",)), tumour=False, clones=False)
    assert within(*options) == 0
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert status["status"].tolist() == ["not_estimable"]
    assert "1 phases have a sample with 20 cells of a tracked type, 2 needed" in status["reason"][0]
    assert "no tumour cells" in status["reason"][0]
    tests = read(tmp_path, "panel_tests.tsv")
    assert set(tests["status"]) == {keys.NOT_ESTIMABLE}
    assert set(tests["unit"]) == {"cell"}  # no contrast exists
    values = read(tmp_path, "panel_values.tsv")
    assert set(values.loc[values["cell_type"] == "tumour", "reason"]) == {"0 cells, 20 needed", "gene_absent"}


def test_few_cells_leave_values_empty(within, inputs, tmp_path):
    options = inputs(cohort(2, n_cells=15), clones=False)
    assert within(*options) == 0
    values = read(tmp_path, "panel_values.tsv")
    assert values["mean"].isna().all()
    assert (values["n_cells"] == 15).any()
    assert set(values["status"]) == {keys.SKIPPED_TOO_FEW_CELLS, keys.NOT_ESTIMABLE}
    tests = read(tmp_path, "panel_tests.tsv")
    assert tests["effect"].isna().all()
    assert set(tests["status"]) == {keys.NOT_ESTIMABLE}
    assert "0 against 0 patients with values, 1 a side needed" in set(tests["reason"])


def test_one_patient_a_side_gives_effects_only(within, inputs, tmp_path):
    options = inputs(cohort(1), clones=False)
    assert within(*options) == 0
    tests = read(tmp_path, "panel_tests.tsv")
    mine = tests[(tests["contrast"] == "POST_vs_PRE") & (tests["gene"] == "CST3") & (tests["unit"] == "patient")]
    assert set(mine["status"]) == {keys.NO_REPLICATES}
    assert mine["effect"].notna().all()
    assert mine["p_value"].isna().all()
    assert mine["reason"].str.contains("needed on each side").all()
    assert set(mine["evidence"]) == {keys.SINGLE_PATIENT}


def test_empty_panel_table(within, inputs, tmp_path):
    options = inputs(cohort(2, n_plain=50), PANELS.iloc[:0], tumour=False, clones=False)
    assert within(*options) == 0
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert status["status"].tolist() == ["skipped_no_input"]
    for name, columns in zip(
        TABLES, (panels.VALUE_COLUMNS, panels.TEST_COLUMNS, panels.TREND_COLUMNS, panels.CLONE_COLUMNS), strict=True
    ):
        assert (tmp_path / name).read_text() == "\t".join(columns) + "\n"


def test_unknown_compartment_is_said(within, inputs, tmp_path):
    table = PANELS[PANELS["gene"].isin(["CST3", "LAG3"])].assign(compartment=["tumour", "Platelets"])
    options = inputs(cohort(2, n_plain=50, phases=("PRE", "POST")), table, clones=False)
    assert within(*options) == 0
    status = io.read_tsv(tmp_path / "track_panels.cohort.status.tsv")
    assert "no cells of the compartment Platelets" in status["reason"][0]


def spoil(tmp_path, what):
    if what == "panels":
        io.write_tsv(PANELS.assign(compartment=""), tmp_path / "panels.tsv")
    elif what == "samples":
        io.write_tsv(io.read_tsv(tmp_path / "samples.tsv", dtype=str).iloc[1:], tmp_path / "samples.tsv")
    elif what == "phases":
        io.write_tsv(io.read_tsv(tmp_path / "phases.tsv", dtype=str).iloc[1:], tmp_path / "phases.tsv")
    elif what == "annotation":
        part = io.read_fragment(tmp_path / "annotation.parquet").iloc[1:].reset_index()
        io.write_fragment(part, tmp_path / "annotation.parquet")
    elif what == "stranger":
        io.write_fragment(pd.DataFrame({"cell": ["X:1"], "tumour": [True]}), tmp_path / "P1.malignant.parquet")
    elif what == "twice":
        content = (tmp_path / "P1.malignant.parquet").read_bytes()
        (tmp_path / "P2.malignant.parquet").write_bytes(content)
    elif what == "clones":
        io.write_tsv(pd.DataFrame({"patient": ["P1"], "cluster": ["1"]}), tmp_path / "P1.clones.tsv")
    elif what == "merged":
        broken = cohort(2, n_plain=30, phases=("PRE", "POST"))
        del broken.layers[keys.COUNTS]
        broken.write_h5ad(tmp_path / "merged.h5ad")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("panels", "panels.tsv:\n  - row 2: compartment is empty; write one"),
        ("samples", "samples.tsv: no row for P1-POST; give the table of this run"),
        ("phases", "phases.tsv: no row for phase PRE"),
        ("annotation", "annotation.parquet: 1 of 360 cells have no row"),
        ("stranger", "1 cells are not in the merged cohort, the first is X:1"),
        ("twice", "stands in two files; give each patient once"),
        ("clones", "P1.clones.tsv: no column patient or clone"),
        ("merged", "merged.h5ad breaks the AnnData contract"),
    ],
)
def test_input_that_cannot_be_used(within, inputs, tmp_path, what, message):
    options = inputs(cohort(2, n_plain=30, phases=("PRE", "POST")))
    spoil(tmp_path, what)
    with pytest.raises(io.InputError) as error:
        within(*options)
    assert message in str(error.value)
    assert not (tmp_path / "panel_values.tsv").exists()


def test_bad_input_ends_with_its_exit_code(run_script, inputs, tmp_path):
    options = inputs(cohort(2, n_plain=30, phases=("PRE", "POST")))
    spoil(tmp_path, "panels")
    done = run_script("track_panels", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert done.stderr.startswith("ERROR track_panels: panels.tsv:")
