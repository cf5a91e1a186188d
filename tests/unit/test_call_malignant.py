"""CALL_MALIGNANT through its command line: planted patients, every status, every error, TNBC1 and healthy skins."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from scresist import io
from tests.data import cnv_patients, real_cohorts
from tests.data.cnv_patients import GAIN, LOSS, Clone

EVENTS = {"1q": GAIN, "8q": GAIN, "5q": LOSS}
OPTIONS = ["--patient", "P1", "--input", "P1.cnv.h5ad", "--scores", "P1.cnv.parquet"]
INFER = ["--patient", "P1", "--input", "merged.h5ad", "--annotation", "annotation.parquet", "--arms", "arms.tsv"]
OUTPUTS = ("P1.malignant.parquet", "P1.malignant.tsv", "P1.malignant_clusters.tsv", "P1.malignant_sensitivity.tsv")


@pytest.fixture(scope="module")
def profiles(tmp_path_factory, run_script):
    """INFER_CNV's files of a planted patient: 25 + 25 tumour cells in two phases, 15 normal epithelial cells."""
    folder = tmp_path_factory.mktemp("profiles")
    merged, annotation, arms = cnv_patients.patient(
        [
            *cnv_patients.normal("A-1", {"T": 50, "Macrophage": 30, "Fibroblast": 30}),
            Clone("A-1", "Epithelial", 25, EVENTS, "C1"),
            Clone("A-2", "Epithelial", 25, EVENTS, "C1"),
            Clone("A-2", "Epithelial", 15, {}, "normal"),
        ],
        phases={"A-2": "POST"},
    )
    cnv_patients.write(folder, merged, annotation, arms)
    run_script("infer_cnv", *INFER, cwd=folder)
    return folder, merged.obs["clone"]


@pytest.fixture
def step(root, tmp_path, monkeypatch):
    """Call the script's main within this process, in the test's folder: a status needs no process of its own."""
    spec = importlib.util.spec_from_file_location("call_malignant_step", root / "bin" / "call_malignant.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(root / ".cache" / "numba"))
    return lambda *options: script.main([str(option) for option in options])


def copy(source: Path, target: Path) -> None:
    for name in ("P1.cnv.h5ad", "P1.cnv.parquet"):
        (target / name).write_bytes((source / name).read_bytes())


def status(folder: Path, unit="P1") -> pd.Series:
    return io.read_tsv(folder / f"call_malignant.{unit}.status.tsv").iloc[0]


def test_planted_patient(run_script, profiles, tmp_path):
    folder, truth = profiles
    copy(folder, tmp_path)
    run_script("call_malignant", *OPTIONS, cwd=tmp_path)
    cells = io.read_fragment(tmp_path / "P1.malignant.parquet")
    assert list(cells) == [
        "malignant", "malignant_basis", "cnv_cluster", "arm_projection", "cnv_corr", "quota_top10", "reference_cut", "tumour",
        "tumour_basis",
    ]  # fmt: skip
    assert len(cells) == 65
    right = truth.loc[cells.index] == "C1"
    call = cells["malignant"] == "malignant"
    assert 2 * (call & right).sum() / (call.sum() + right.sum()) >= 0.97
    assert (cells["tumour"] == call).all()
    assert set(cells["tumour_basis"]) == {"cnv"}
    assert cells["quota_top10"].sum() == 7  # a tenth of 65
    assert cells.loc[call, "cnv_corr"].mean() > cells.loc[~call, "cnv_corr"].mean()
    table = io.read_tsv(tmp_path / "P1.malignant.tsv")
    assert list(table) == [
        "patient", "sample", "phase", "n_epithelial", "n_malignant", "n_non", "n_unresolved", "n_quota", "n_refcut", "n_tumour",
        "tumour_basis", "agreement_quota", "agreement_refcut", "status",
    ]  # fmt: skip
    assert table["phase"].tolist() == ["PRE", "POST"]
    assert table["n_epithelial"].tolist() == [25, 40]
    assert (table[["n_malignant", "n_non", "n_unresolved"]].sum(axis=1) == table["n_epithelial"]).all()
    mine = cells[cells.index.str.startswith("A-2:")]
    resolved = mine["malignant"] != "unresolved"
    agree = ((mine["malignant"] == "malignant") == mine["quota_top10"])[resolved].mean()
    assert table["agreement_quota"].iloc[1] == pytest.approx(agree, rel=1e-5)
    clusters = io.read_tsv(tmp_path / "P1.malignant_clusters.tsv")
    assert clusters["n_cells"].sum() == 65
    assert set(clusters.loc[clusters["tumour_like"], "arms"]) == {"+1q,-5q,+8q"}
    moved = io.read_tsv(tmp_path / "P1.malignant_sensitivity.tsv")
    assert moved.loc[moved["is_default"], "n_malignant"].tolist() == [call.sum()]
    row = status(tmp_path)
    assert row["status"] == "ok"
    assert f"{call.sum()} of 65 epithelial cells carry copy-number changes" in row["sentence"]
    before = [(tmp_path / name).read_bytes() for name in OUTPUTS]
    run_script("call_malignant", *OPTIONS, "--threads", "2", cwd=tmp_path)
    assert [(tmp_path / name).read_bytes() for name in OUTPUTS] == before


@pytest.mark.parametrize(("use", "tumour", "basis"), [("epithelial", True, "epithelial"), ("none", False, "none")])
def test_quiet_patient(step, profiles, tmp_path, use, tumour, basis):
    copy(profiles[0], tmp_path)
    step(*OPTIONS, "--arm_shift", "90", "--quiet_use", use)
    row = status(tmp_path)
    assert row["status"] == "cnv_quiet"
    assert "has 2 shifted arms (most found: 0)" in row["reason"]
    cells = io.read_fragment(tmp_path / "P1.malignant.parquet")
    assert set(cells["malignant"]) == {"unresolved"}
    assert set(cells["malignant_basis"]) == {"cnv_quiet"}
    assert set(cells["tumour"]) == {tumour}
    assert set(cells["tumour_basis"]) == {basis}
    assert cells["arm_projection"].isna().all()
    table = io.read_tsv(tmp_path / "P1.malignant.tsv")
    assert table["agreement_quota"].isna().all()  # nothing resolved: no share, and not 0
    assert set(table["status"]) == {"cnv_quiet"}


def without_profiles(folder: Path, n: int, word: str, reason: str) -> None:
    """INFER_CNV's files of a patient that it skipped, with `n` epithelial cells."""
    empty = np.empty((0, 0), dtype=np.float32)
    made = anndata.AnnData(empty, obsm=dict.fromkeys(("X_cnv", "arms", "arm_thirds", "loci"), empty))
    made.uns["arms"] = {"name": np.empty(0), "n_genes": np.empty(0)}
    made.uns["samples"] = {"sample": np.array(["S"]), "phase": np.array(["RES"])}
    made.uns["status"] = {"word": word, "reason": reason}
    made.write_h5ad(folder / "P1.cnv.h5ad")
    cells = pd.DataFrame({"cell": [f"S:{at:03d}" for at in range(n + 5)], "cnv_role": ["query"] * n + ["reference"] * 5})
    io.write_fragment(cells.assign(cnv_score_sum=np.nan, cnv_score_mean=np.nan), folder / "P1.cnv.parquet")


@pytest.mark.parametrize(
    ("n", "word", "reason", "basis"),
    [
        (0, "skipped_no_input", "no epithelial cell of this patient", None),
        (19, "skipped_too_few_cells", "19 epithelial cells, 20 needed", "too_few_cells"),
        (30, "skipped_no_input", "no copy-number profile of this patient: 9 immune cells, 50 needed", "no_profile"),
    ],
)
def test_patients_without_profiles(step, tmp_path, n, word, reason, basis):
    without_profiles(tmp_path, n, "skipped_insufficient_reference", "9 immune cells, 50 needed")
    step(*OPTIONS)
    row = status(tmp_path)
    assert (row["status"], row["reason"]) == (word, reason)
    cells = io.read_fragment(tmp_path / "P1.malignant.parquet")
    assert len(cells) == n
    assert set(cells["malignant"]) <= {"unresolved"}
    assert set(cells["malignant_basis"]) == ({basis} if basis else set())
    assert cells["tumour"].all()
    assert cells["quota_top10"].isna().all()
    table = io.read_tsv(tmp_path / "P1.malignant.tsv")
    assert table["n_epithelial"].tolist() == ([n] if n else [])
    assert table["n_quota"].isna().all()
    assert set(table["phase"]) <= {"RES"}
    assert io.read_tsv(tmp_path / "P1.malignant_sensitivity.tsv").empty


def test_a_note_on_the_profiles_is_passed_on(step, profiles, tmp_path):
    copy(profiles[0], tmp_path)
    made = anndata.read_h5ad(tmp_path / "P1.cnv.h5ad")
    made.uns["status"] = {"word": "warning", "reason": "75 reference cells, 100 wanted"}
    made.write_h5ad(tmp_path / "P1.cnv.h5ad")
    step(*OPTIONS)
    row = status(tmp_path)
    assert row["status"] == "warning"
    assert row["reason"] == "copy-number profiles: 75 reference cells, 100 wanted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("uns", "P1.cnv.h5ad: uns['arms'] is missing"),
        ("obsm", "P1.cnv.h5ad: obsm['arm_thirds'] is missing"),
        ("column", "P1.cnv.parquet: no column cnv_role"),
        ("rows", "P1.cnv.parquet: 1 of 175 cells have no row"),
        ("role", "hold different epithelial cells"),
    ],
)
def test_input_errors(run_script, step, profiles, tmp_path, change, message):
    copy(profiles[0], tmp_path)
    made, scores = anndata.read_h5ad(tmp_path / "P1.cnv.h5ad"), pd.read_parquet(tmp_path / "P1.cnv.parquet")
    if change == "uns":
        del made.uns["arms"]
    if change == "obsm":
        del made.obsm["arm_thirds"]
    if change == "column":
        scores = scores.drop(columns="cnv_role")
    if change == "rows":
        scores = scores.iloc[1:]
    if change == "role":
        scores.loc[scores.index[:1], "cnv_role"] = "query"
    made.write_h5ad(tmp_path / "P1.cnv.h5ad")
    scores.to_parquet(tmp_path / "P1.cnv.parquet")
    if change == "uns":  # once as a task calls it
        done = run_script("call_malignant", *OPTIONS, cwd=tmp_path, check=False)
        assert done.returncode == 65
        assert message in done.stderr
    with pytest.raises(io.InputError, match=re.escape(message)):
        step(*OPTIONS)


@pytest.mark.real
def test_tnbc1(run_script, shared_data, root, tmp_path):
    """The consensus against CopyKAT's calls of all cells (reference cells count as not malignant)."""
    calls = real_cohorts.tnbc1(shared_data)[1]
    cnv_patients.real_tnbc1(tmp_path, shared_data, root)
    run_script("infer_cnv", "--patient", "TNBC1", *INFER[2:-1], root / "assets" / "arms.tsv", cwd=tmp_path)
    run_script("call_malignant", "--patient", "TNBC1", "--input", "TNBC1.cnv.h5ad", "--scores", "TNBC1.cnv.parquet", cwd=tmp_path)
    cells = io.read_fragment(tmp_path / "TNBC1.malignant.parquet")
    call = (cells["malignant"] == "malignant").reindex(calls.index, fill_value=False)
    agree = (call == (calls == "aneuploid")).mean()
    print("agreement", agree, "F1", 2 * (call & (calls == "aneuploid")).sum() / (call.sum() + (calls == "aneuploid").sum()))
    assert agree >= 0.97
    arms = ",".join(io.read_tsv(tmp_path / "TNBC1.malignant_clusters.tsv")["arms"].dropna())
    print(arms)
    assert "+8q" in arms and "+1q" in arms
    table = io.read_tsv(tmp_path / "TNBC1.cnv_arms.tsv")
    tumour = table[table["cnv_role"] == "query"].set_index("arm")["mean_z"]
    assert (tumour[["8q", "1q", "6p"]] > 1.5).all()  # on 6p the HLA genes weigh in: a gain in the table, no event of a cluster
    assert cells["quota_top10"].sum() == 23


@pytest.mark.real
def test_healthy_skins(run_script, shared_data, root, tmp_path):
    """Keratinocytes of HC-1, HC-2, HC-3 as epithelium: no malignant cell, cnv_quiet, all unresolved."""
    cnv_patients.real_skins(tmp_path, shared_data, root)
    for patient in ("HC-1", "HC-2", "HC-3"):
        run_script("infer_cnv", "--patient", patient, *INFER[2:-1], root / "assets" / "arms.tsv", cwd=tmp_path)
        files = ["--input", f"{patient}.cnv.h5ad", "--scores", f"{patient}.cnv.parquet"]
        run_script("call_malignant", "--patient", patient, *files, cwd=tmp_path)
        row = status(tmp_path, patient)
        assert row["status"] == "cnv_quiet"
        cells = io.read_fragment(tmp_path / f"{patient}.malignant.parquet")
        assert len(cells) >= 30
        assert set(cells["malignant"]) == {"unresolved"}
        assert not io.read_tsv(tmp_path / f"{patient}.malignant_clusters.tsv")["tumour_like"].any()
