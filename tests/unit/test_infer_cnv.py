"""INFER_CNV through its command line: planted patients, every status, every error, and TNBC1."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import io
from tests.data import cnv_patients, real_cohorts
from tests.data.cnv_patients import GAIN, LOSS, Clone

EVENTS = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
OPTIONS = ["--patient", "P1", "--input", "merged.h5ad", "--annotation", "annotation.parquet", "--arms", "arms.tsv"]
OUTPUTS = ("P1.cnv.h5ad", "P1.cnv.parquet", "P1.cnv_arms.tsv", "P1.cnv_reference.tsv")


def patient(n_reference=120, n_tumour=40, events=None, fibroblast=None, **more):
    """Two samples of one patient: T cells and fibroblasts (which may carry events), tumour cells in both."""
    third = n_reference // 3
    return cnv_patients.patient(
        [
            *cnv_patients.normal("A-1", {"T": third, "Macrophage": third}),
            Clone("A-1", "Fibroblast", n_reference - 2 * third, fibroblast or {}),
            Clone("A-1", "Epithelial", n_tumour // 2, EVENTS if events is None else events),
            Clone("A-2", "Epithelial", n_tumour - n_tumour // 2, EVENTS if events is None else events),
        ],
        phases={"A-2": "POST"},
        **more,
    )


@pytest.fixture
def step(root, tmp_path, monkeypatch):
    """Call the script's main within this process, in the test's folder: a status needs no process of its own."""
    spec = importlib.util.spec_from_file_location("infer_cnv_step", root / "bin" / "infer_cnv.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "infer_cnv_step", script)  # dataclasses look their module up
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(root / ".cache" / "numba"))
    return lambda *options: script.main([str(option) for option in options])


def status(folder: Path, unit="P1") -> pd.Series:
    return io.read_tsv(folder / f"infer_cnv.{unit}.status.tsv").iloc[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_script):
    """The step on one planted patient beside another; returns its folder and the input."""
    folder = tmp_path_factory.mktemp("made")
    merged, annotation, arms = patient()
    other = merged[:30].copy()
    other.obs_names = [name.replace("A-1", "B-1") for name in other.obs_names]
    other.obs["sample"], other.obs["patient"] = "B-1", "P2"
    both = anndata.concat([merged, other], merge="same")
    both.uns["scresist"] = {}
    more = annotation.iloc[:30].assign(cell=other.obs_names)
    cnv_patients.write(folder, both, pd.concat([annotation, more]).sample(frac=1, random_state=0), arms)
    panel = sorted(merged.var_names[:3])
    (folder / "panels.tsv").write_text("panel\tgene\n" + "".join(f"x\t{gene}\n" for gene in [*panel, panel[0], "NOT_MEASURED"]))
    run_script("infer_cnv", *OPTIONS, "--panels", "panels.tsv", cwd=folder)
    return folder, merged, annotation, panel


def test_files(made):
    folder, merged, _, panel = made
    found = anndata.read_h5ad(folder / "P1.cnv.h5ad")
    assert found.n_obs == 160
    assert list(found.obs_names) == sorted(merged.obs_names)
    assert list(found.obs) == ["sample", "patient", "phase", "main_type", "cnv_role", "cnv_group"]
    assert found.obs["cnv_role"].value_counts().to_dict() == {"reference": 120, "query": 40}
    assert set(found.obs.loc[found.obs["cnv_role"] == "query", "cnv_group"]) == {""}
    assert found.X.dtype == np.float32
    assert np.array_equal(found.X, found.obsm["X_cnv"])
    arms = found.uns["arms"]
    assert found.obsm["arms"].shape == (160, len(arms["name"]))
    assert found.obsm["arm_thirds"].shape == (160, 3 * len(arms["name"]))
    assert found.obsm["loci"].shape == (160, 3)
    assert list(found.uns["loci"]["gene"]) == panel
    reference = (found.obs["cnv_role"] == "reference").to_numpy()
    assert np.allclose(arms["mean_ref"], found.obsm["arms"][reference].mean(axis=0), atol=1e-6)
    assert np.allclose(arms["sd_ref"], found.obsm["arms"][reference].std(axis=0, ddof=1), atol=1e-6)
    assert np.allclose(arms["third_sd_ref"], found.obsm["arm_thirds"][reference].std(axis=0, ddof=1), atol=1e-6)
    assert found.uns["cnv"]["chr_pos"]["chr1"] == 0
    for name, at in found.uns["cnv"]["chr_pos"].items():
        assert found.var["chromosome"].iloc[at] == name.removeprefix("chr")
        assert at == 0 or found.var["chromosome"].iloc[at - 1] != name.removeprefix("chr")
    scores = io.read_fragment(folder / "P1.cnv.parquet")
    assert list(scores) == ["cnv_role", "cnv_score_sum", "cnv_score_mean"]
    n_genes = (scores["cnv_score_sum"] / scores["cnv_score_mean"]).round().unique()
    assert len(n_genes) == 1
    assert scores["cnv_score_mean"].notna().all()
    assert status(folder)["status"] == "ok"
    assert f"40 epithelial cells over {int(n_genes[0])} genes, against 120 normal cells" in status(folder)["sentence"]


def test_tables(made):
    folder, *_ = made
    arms = io.read_tsv(folder / "P1.cnv_arms.tsv")
    assert list(arms) == [
        "patient", "sample", "phase", "main_type", "cnv_role", "arm", "n_genes", "n_cells", "mean", "sd", "mean_z",
    ]  # fmt: skip
    tumour = arms[arms["main_type"] == "Epithelial"].pivot(index="arm", columns="sample", values="mean_z")
    assert (tumour.loc[["1q", "8q"]] > 1.5).all(axis=None)
    assert (tumour.loc["5q"] < -1.5).all()
    normal = arms[(arms["cnv_role"] == "reference")]
    assert (normal.groupby("arm")["mean_z"].apply(lambda z: abs(z).max()) < 1).all()
    assert set(arms.loc[arms["sample"] == "A-2", "phase"]) == {"POST"}
    reference = io.read_tsv(folder / "P1.cnv_reference.tsv")
    assert reference["group"].tolist() == ["Fibroblast", "Macrophage", "T"]
    assert reference["n_cells"].tolist() == [40, 40, 40]
    assert reference["arms_shifted"].tolist() == [0, 0, 0]
    assert reference["used"].tolist() == [True, True, True]
    record = json.loads((folder / "infer_cnv.P1.provenance.json").read_text())
    assert record["parameters"]["window"] == 101


def test_plots_of_infercnvpy_take_the_file(made):
    infercnvpy = pytest.importorskip("infercnvpy")
    import matplotlib as mpl

    mpl.use("Agg")
    folder, *_ = made
    found = anndata.read_h5ad(folder / "P1.cnv.h5ad")
    infercnvpy.pl.chromosome_heatmap(found, groupby="cnv_role", show=False)


def test_bytes_do_not_depend_on_order_block_or_run(made, run_script, tmp_path):
    folder, *_ = made
    before = [(folder / name).read_bytes() for name in OUTPUTS]
    merged = anndata.read_h5ad(folder / "merged.h5ad")
    rng = np.random.default_rng(3)
    shuffled = merged[rng.permutation(merged.n_obs)].copy()
    annotation = pd.read_parquet(folder / "annotation.parquet").sample(frac=1, random_state=1)
    cnv_patients.write(tmp_path, shuffled, annotation, io.read_tsv(folder / "arms.tsv", dtype={"chromosome": str}))
    (tmp_path / "panels.tsv").write_bytes((folder / "panels.tsv").read_bytes())
    run_script("infer_cnv", *OPTIONS, "--panels", "panels.tsv", "--block_cells", "7", "--threads", "2", cwd=tmp_path)
    after = [(tmp_path / name).read_bytes() for name in OUTPUTS]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("given", "options", "word", "reason"),
    [
        ({"n_tumour": 0}, [], "skipped_no_input", "no epithelial cell of this patient"),
        ({"n_tumour": 19}, [], "skipped_too_few_cells", "19 epithelial cells, 20 needed"),
        ({"n_reference": 49}, [], "skipped_insufficient_reference", "49 immune and stromal cells, 50 needed"),
        ({}, ["--reference", "Fibroblast"], "skipped_insufficient_reference", "40 Fibroblast cells, 50 needed"),
        ({}, ["--min_mean", "2"], "skipped_few_genes", "genes with a place on chromosomes 1 to 22 and a mean count of 2 or more"),
        ({"n_reference": 75}, [], "warning", "75 reference cells, 100 wanted"),
        ({"fibroblast": EVENTS}, [], "warning", "reference_suspect: 40 of 40 cells of Fibroblast (+1q,-5q,+8q)"),
        ({"fibroblast": EVENTS}, ["--min_reference_cells", "90"], "skipped_insufficient_reference", "80 reference cells are"),
        ({}, ["--reference", "T,Macrophage"], "warning", "80 reference cells, 100 wanted"),
        ({"n_reference": 300}, ["--reference", "Fibroblast"], "ok", "one reference group (Fibroblast)"),
    ],
)  # fmt: skip
def test_statuses(step, tmp_path, given, options, word, reason):
    cnv_patients.write(tmp_path, *patient(**given))
    step(*OPTIONS, *options)
    row = status(tmp_path)
    assert row["status"] == word
    assert reason in row["reason"]
    found, scores = anndata.read_h5ad(tmp_path / "P1.cnv.h5ad"), io.read_fragment(tmp_path / "P1.cnv.parquet")
    if word.startswith("skipped"):
        assert found.n_obs == 0
        assert set(found.obsm) == {"X_cnv", "arms", "arm_thirds", "loci"}
        assert set(found.uns["arms"]) == {"name", "n_genes", "mean_ref", "sd_ref", "third_mean_ref", "third_sd_ref"}
        assert scores["cnv_score_sum"].isna().all()
        assert io.read_tsv(tmp_path / "P1.cnv_arms.tsv").empty
    else:
        assert found.n_obs == (scores["cnv_role"] != "").sum()
        assert scores.loc[scores["cnv_role"] != "", "cnv_score_sum"].notna().all()
    if "fibroblast" in given:
        reference = io.read_tsv(tmp_path / "P1.cnv_reference.tsv").set_index("group")
        assert reference["used"].to_dict() == {"Fibroblast": False, "Macrophage": True, "T": True}
        assert (scores["cnv_role"] == "").sum() == 40


def test_a_patient_without_cells(step, tmp_path):
    cnv_patients.write(tmp_path, *patient(n_reference=60, n_tumour=20))
    step(*OPTIONS[2:], "--patient", "P7")
    assert status(tmp_path, "P7")["status"] == "skipped_no_input"
    assert len(io.read_fragment(tmp_path / "P7.cnv.parquet")) == 0


def test_references_that_contradict_each_other(step, tmp_path):
    merged, annotation, arms = cnv_patients.patient(
        [Clone("A", "T", 60, {}), Clone("A", "Fibroblast", 60, EVENTS), Clone("A", "Epithelial", 30, EVENTS)]
    )
    cnv_patients.write(tmp_path, merged, annotation, arms)
    step(*OPTIONS)
    assert status(tmp_path)["status"] == "skipped_insufficient_reference"
    assert "the reference groups contradict each other" in status(tmp_path)["reason"]


def test_cells_with_epithelial_markers_are_no_reference(step, tmp_path):
    merged, annotation, arms = patient()
    annotation["marker_type"] = annotation["main_type"]
    annotation.loc[annotation.index[:10], "marker_type"] = "Epithelial"
    cnv_patients.write(tmp_path, merged, annotation, arms)
    step(*OPTIONS)
    found = anndata.read_h5ad(tmp_path / "P1.cnv.h5ad")
    assert (found.obs["cnv_role"] == "reference").sum() == 110


def test_the_other_engine(step, tmp_path):
    pytest.importorskip("infercnvpy")
    cnv_patients.write(tmp_path, *patient())
    step(*OPTIONS, "--engine", "infercnvpy")
    found = anndata.read_h5ad(tmp_path / "P1.cnv.h5ad")
    assert found.n_obs == 160
    assert found.obsm["X_cnv"].shape == found.shape
    record = json.loads((tmp_path / "infer_cnv.P1.provenance.json").read_text())
    assert "infercnvpy" in record["packages"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("column", [], "annotation.parquet: no column lineage"),
        ("cell", [], "the annotation: 1 of 160 cells have no row"),
        ("arms", [], "arms.tsv: no column end"),
        ("panel", ["--panels", "panels.tsv"], "panels.tsv: no column gene"),
        ("", ["--reference", "Fibroblast,Astrocyte"], "--reference names Astrocyte, which no cell of annotation.parquet has"),
        ("counts", [], "layers['counts'] is missing"),
        ("halves", [], "non-integers"),
    ],
)
def test_input_errors(run_script, step, tmp_path, change, options, message):
    merged, annotation, arms = patient()
    if change == "column":
        annotation = annotation.drop(columns="lineage")
    if change == "cell":
        annotation = annotation.iloc[1:]
    if change == "arms":
        arms = arms.drop(columns="end")
    if change == "panel":
        (tmp_path / "panels.tsv").write_text("symbol\nERBB2\n")
    if change == "counts":
        merged.X = merged.layers.pop("counts")
    if change == "halves":
        merged.layers["counts"] = sparse.csr_matrix(merged.layers["counts"] * 0.5)
    cnv_patients.write(tmp_path, merged, annotation, arms)
    if not change:  # once as a task calls it: text on stderr and exit code 65
        done = run_script("infer_cnv", *OPTIONS, *options, cwd=tmp_path, check=False)
        assert done.returncode == 65
        assert message in done.stderr
    with pytest.raises(io.InputError, match=re.escape(message)):
        step(*OPTIONS, *options)
    assert not list(tmp_path.glob("*.status.tsv"))


@pytest.mark.parametrize(("window", "message"), [("100", "100 is even"), ("1", "outside"), ("x", "not a whole number")])
def test_windows_that_do_not_exist(step, capsys, window, message):
    with pytest.raises(SystemExit, match="2"):
        step(*OPTIONS, "--window", window)
    assert message in capsys.readouterr().err


def test_arms_of_grch38(root):
    table = io.read_tsv(root / "assets" / "arms.tsv", dtype={"chromosome": str})
    assert table.groupby("chromosome")["arm"].agg("".join).to_dict() == dict.fromkeys([*map(str, range(1, 23)), "X", "Y"], "pq")
    wide = table.set_index(["chromosome", "arm"])
    genes = pd.read_csv(root / "assets" / "gene_positions.tsv.gz", sep="\t", dtype=str, keep_default_na=False)
    genes = genes[(genes["start"] != "") & (genes["chromosome"] != "MT")].astype({"start": int, "end": int})
    for chromosome, mine in genes.groupby("chromosome"):
        middle, end = wide.loc[(chromosome, "p"), "end"], wide.loc[(chromosome, "q"), "end"]
        assert wide.loc[(chromosome, "q"), "start"] == middle + 1
        assert not ((mine["start"] <= middle) & (mine["end"] > middle)).any(), "a gene across a centromere"
        assert mine["end"].max() <= end
    # cytogenetic bands of genes as known: on both sides of their centromeres
    bands = {
        "NRAS": "1p", "NOTCH2": "1p", "BCL9": "1q", "MYC": "8q", "FGFR1": "8p", "ERBB2": "17q", "TP53": "17p", "MUC3A": "7q",
        "EGFR": "7p", "BRCA2": "13q", "CCNE1": "19q", "STK11": "19p", "SMAD4": "18q", "GATA6": "18q", "ZNF217": "20q",
        "CDKN2A": "9p", "MKI67": "10q", "RET": "10q", "KRAS": "12p", "MDM2": "12q", "APC": "5q", "TERT": "5p", "RUNX1": "21q",
    }  # fmt: skip
    places = genes.set_index("symbol")
    for gene, arm in bands.items():
        row = wide.loc[(places.loc[gene, "chromosome"], arm[-1])]
        assert places.loc[gene, "chromosome"] == arm[:-1]
        assert row["start"] <= places.loc[gene, "start"] <= row["end"], gene


@pytest.mark.real
def test_tnbc1(run_script, shared_data, root, tmp_path):
    """The score separates CopyKAT's aneuploid from its diploid cells; gains of chromosomes 8, 1 and 6 as published."""
    from sklearn.metrics import roc_auc_score

    calls = real_cohorts.tnbc1(shared_data)[1]
    annotation = cnv_patients.real_tnbc1(tmp_path, shared_data, root)
    options = ["--patient", "TNBC1", *OPTIONS[2:-1], root / "assets" / "arms.tsv"]
    run_script("infer_cnv", *options, cwd=tmp_path)
    row = status(tmp_path, "TNBC1")
    assert row["status"] == "warning"  # 73 reference cells
    n_genes = int(row["sentence"].split(" over ")[1].split()[0])
    assert n_genes >= 9000
    scores = io.read_fragment(tmp_path / "TNBC1.cnv.parquet")
    auc = roc_auc_score(calls.loc[scores.index] == "aneuploid", scores["cnv_score_sum"])
    print("AUC", auc, "genes", n_genes)
    assert auc >= 0.99
    found = anndata.read_h5ad(tmp_path / "TNBC1.cnv.h5ad")
    query = (found.obs["cnv_role"] == "query").to_numpy()
    mean = pd.Series(found.X[query].mean(axis=0)).groupby(found.var["chromosome"].astype(str).to_numpy()).mean()
    print(mean.sort_values().round(3).to_dict())
    assert mean.idxmax() == "8"
    assert 0.2 <= mean["8"] <= 0.31
    assert mean["1"] > 0.05 and mean["6"] > 0.05
    assert (mean[["14", "19", "5"]] < -0.05).all()
    assert annotation["main_type"].nunique() == 6
