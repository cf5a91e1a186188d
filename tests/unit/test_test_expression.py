"""TEST_EXPRESSION through its command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import design, expression, io, keys
from scresist.io import InputError
from tests.data import cohorts

PLANTED = [f"GENE{i:04d}" for i in range(8)]
ENDS = (
    "de_cells.tsv.gz", "de_pseudobulk.tsv.gz", "pseudobulk_samples.tsv", "de_summary.tsv", "de_top.tsv", "volcano.png",
    "rankings.tsv.gz",
)  # fmt: skip
FILES = [
    "--contrasts", "contrasts.tsv", "--samples", "samples.tsv", "--input", "merged.h5ad", "--annotation", "annotation.parquet",
]  # fmt: skip


def cohort(folder: Path, samples: list[tuple[str, str, str]], n_cells: int = 75, order: int | None = None) -> pd.DataFrame:
    """Inputs of the step in `folder`: samples (name, patient, phase); planted genes are three times as high at POST."""
    made = []
    for number, (name, patient, phase) in enumerate(samples):
        one = cohorts.sample(name, n_cells, number, patient=patient, phase=phase, n_plain=120, shift=0.15)
        if phase == "POST":
            counts = one.layers["counts"].toarray()
            counts[:, one.var_names.get_indexer(PLANTED)] = 3 * counts[:, one.var_names.get_indexer(PLANTED)] + 1
            one.layers["counts"] = sparse.csr_matrix(counts)
        made.append(one)
    merged = cohorts.merged(made)
    if order is not None:
        merged = merged[np.random.default_rng(order).permutation(merged.n_obs)].copy()
    merged.write_h5ad(folder / "merged.h5ad")
    kind = merged.obs["kind"].astype(str)
    lineage = kind.map({"Epithelial": "epithelial", "T_NK": "immune", "B": "immune"})
    labels = {"cell": merged.obs_names, "main_type": kind.to_numpy(), "subtype": kind.to_numpy(), "lineage": lineage.to_numpy()}
    annotation = pd.DataFrame(labels)
    annotation.loc[annotation["cell"].isin(sorted(merged.obs_names[kind == "B"])[:3]), "main_type"] = keys.UNRESOLVED
    io.write_fragment(annotation, folder / "annotation.parquet")
    clusters = pd.DataFrame({"cell": merged.obs_names, "cluster": np.where(kind == "B", "1", "0")})
    io.write_fragment(clusters, folder / "clusters.parquet")
    for patient in sorted({p for _, p, _ in samples}):
        mine = merged.obs_names[(merged.obs["patient"] == patient) & (kind == "Epithelial").to_numpy()]
        io.write_fragment(pd.DataFrame({"cell": mine, "tumour": True}), folder / f"{patient}.malignant.parquet")
    table = pd.DataFrame(samples, columns=["sample", "patient", "phase"]).drop_duplicates()
    io.write_tsv(table, folder / "samples.tsv")
    phases = io.read_tsv(Path(__file__).resolve().parents[2] / "assets" / "phases.tsv")
    contrasts = design.contrast_table(design.default_contrasts(table, phases), table, "auto", 2)
    io.write_tsv(contrasts, folder / "contrasts.tsv")
    return contrasts


PAIRS = [(f"P{i}-{phase}", f"P{i}", phase) for i in range(3) for phase in ("PRE", "POST")]


@pytest.fixture
def step(root, tmp_path, monkeypatch):
    """The script called within this process in tmp_path: imports are paid once for all tests."""
    spec = importlib.util.spec_from_file_location("step_test_expression", root / "bin" / "test_expression.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return lambda *args: module.main([str(arg) for arg in args])


def read(name: str, **options):
    return io.read_tsv(Path(name), **options)


def test_outputs_and_a_second_run_of_equal_bytes(run_script, step, tmp_path):
    cohort(tmp_path, PAIRS)
    tumour = sorted(path.name for path in tmp_path.glob("*.malignant.parquet"))
    options = ["--contrast", "POST_vs_PRE", *FILES, "--tumour", *tumour]
    done = run_script("test_expression", *options, cwd=tmp_path)
    assert done.stderr == "" and done.returncode == 0
    names = [*(f"POST_vs_PRE.{end}" for end in ENDS), "test_expression.POST_vs_PRE.status.tsv"]
    first = [Path(name).read_bytes() for name in names]
    cohort(tmp_path, PAIRS, order=3)  # the same cells in another order
    run_script("test_expression", *options[: -len(tumour)], *reversed(tumour), cwd=tmp_path)
    assert first == [Path(name).read_bytes() for name in names]

    status = read("test_expression.POST_vs_PRE.status.tsv").iloc[0]
    assert (status["unit_type"], status["status"], status["n_cells"], status["n_patients"]) == ("contrast", "ok", 450, 3)
    assert "genes differ between patients in 4 of 4 cell types" in status["sentence"]
    summary = read("POST_vs_PRE.de_summary.tsv")
    assert summary["cell_type"].tolist() == ["tumour", "B", "Epithelial", "T_NK"]
    assert set(summary["design"]) == {"~ patient + side"} and set(summary["evidence"]) == {keys.REPLICATED}
    assert (summary["n_up_pseudobulk"] >= len(PLANTED)).all() and (summary["n_both"] >= len(PLANTED)).all()
    assert (summary["n_cells_a"] + summary["n_cells_b"]).tolist() == [150, 147, 150, 150]  # three B cells are unresolved

    cells, patients = read("POST_vs_PRE.de_cells.tsv.gz"), read("POST_vs_PRE.de_pseudobulk.tsv.gz")
    assert list(cells) == list(expression.CELL_COLUMNS) and list(patients) == list(expression.PSEUDOBULK_COLUMNS)
    assert set(cells["evidence"]) == {keys.CELL_LEVEL} and set(patients["unit"]) == {"patient"}
    found = patients[(patients["cell_type"] == "T_NK") & (patients["direction"] == "up")]["gene"]
    assert set(PLANTED) <= set(found) and len(found) <= len(PLANTED) + 1
    ranking = read("POST_vs_PRE.rankings.tsv.gz")
    assert list(ranking) == list(expression.RANKING_COLUMNS) and set(ranking["evidence"]) == {keys.REPLICATED}
    assert set(ranking[ranking["group"] == "tumour"]["gene"].head(len(PLANTED))) == set(PLANTED)
    top = read("POST_vs_PRE.de_top.tsv")
    assert top.groupby(["cell_type", "side"]).size().max() == 10
    samples = read("POST_vs_PRE.pseudobulk_samples.tsv")
    assert samples["used"].all() and len(samples) == 24
    assert Path("POST_vs_PRE.volcano.png").stat().st_size < 250_000
    made = json.loads(Path("test_expression.POST_vs_PRE.provenance.json").read_text())
    assert made["packages"]["pydeseq2"] and made["parameters"]["tumour"] == sorted(made["parameters"]["tumour"], reverse=True)


def test_one_patient_a_side_is_exploratory(step, tmp_path):
    cohort(tmp_path, [("A-PRE", "A", "PRE"), ("B-POST", "B", "POST")])
    step("--contrast", "POST_vs_PRE", *FILES, "--groups", "clusters.parquet", "--levels", "tumour,main_type,cluster")
    status = read("test_expression.POST_vs_PRE.status.tsv").iloc[0]
    assert status["status"] == keys.NO_REPLICATES and "exploratory" in status["reason"]
    assert "1 against 1, 2 needed on each side" in status["reason"]
    summary = read("POST_vs_PRE.de_summary.tsv").set_index("cell_type")
    assert summary.loc["tumour", "status"] == keys.SKIPPED_NO_INPUT and "no tumour calls" in summary.loc["tumour", "reason"]
    assert np.isnan(summary.loc["tumour", "n_up_cells"]) and np.isnan(summary.loc["B", "n_up_pseudobulk"])
    assert set(summary.index[1:]) == {"B", "Epithelial", "T_NK", "cluster:0", "cluster:1"}
    assert summary.loc["cluster:0", "n_cells_a"] == 50 and summary.loc["B", "status"] == keys.NO_REPLICATES
    assert Path("POST_vs_PRE.de_pseudobulk.tsv.gz").stat().st_size > 0 and read("POST_vs_PRE.de_pseudobulk.tsv.gz").empty
    ranking = read("POST_vs_PRE.rankings.tsv.gz")
    assert set(ranking["evidence"]) == {keys.CELL_LEVEL} and "cluster:1" in set(ranking["group"])
    assert read("POST_vs_PRE.de_summary.tsv")["evidence"].dropna().eq(keys.CELL_LEVEL).all()


def test_few_cells_give_empty_tables_with_header(step, tmp_path):
    cohort(tmp_path, PAIRS, n_cells=9)
    step("--contrast", "POST_vs_PRE", *FILES, "--tumour", "P0.malignant.parquet")
    status = read("test_expression.POST_vs_PRE.status.tsv").iloc[0]
    assert status["status"] == keys.SKIPPED_TOO_FEW_CELLS and "tumour: 3 against 3 cells, 20 needed" in status["reason"]
    for end in ENDS:
        if end.endswith(("tsv", "gz")) and end not in ("de_summary.tsv", "pseudobulk_samples.tsv"):
            assert read(f"POST_vs_PRE.{end}").empty and len(read(f"POST_vs_PRE.{end}").columns) > 5
    assert set(read("POST_vs_PRE.pseudobulk_samples.tsv")["reason"]) == {"fewer than 10 cells"}
    assert Path("POST_vs_PRE.volcano.png").read_bytes().startswith(b"\x89PNG")


def test_warning_of_the_design_is_passed_on_and_missing_samples_do_no_harm(step, tmp_path):
    """One pair among five patients: tested as unpaired, said so; a sample that quality control dropped is not in the matrix."""
    sheet = [(f"{p}-{phase}", p, phase) for p, phase in zip("AABCD", ["PRE", "POST", "PRE", "PRE", "POST"], strict=True)]
    contrasts = cohort(tmp_path, sheet)
    assert contrasts["status"].tolist() == [keys.WARNING]
    io.write_tsv(contrasts.assign(samples_a="A-POST,D-POST,E-POST"), tmp_path / "contrasts.tsv")
    more = pd.DataFrame([*sheet, ("E-POST", "E", "POST")], columns=["sample", "patient", "phase"])
    io.write_tsv(more, tmp_path / "samples.tsv")
    step("--contrast", "POST_vs_PRE", *FILES, "--levels", "main_type")
    status = read("test_expression.POST_vs_PRE.status.tsv").iloc[0]
    assert status["status"] == keys.WARNING and "partially_paired" in status["reason"] and status["n_samples"] == 5
    summary = read("POST_vs_PRE.de_summary.tsv")
    assert set(summary["design"]) == {"~ side"} and set(summary["evidence"]) == {keys.LIMITED}
    assert summary["n_patients_used_a"].tolist() == [2, 2, 2] and summary["n_patients_used_b"].tolist() == [3, 3, 3]


def test_contrast_without_cells(step, tmp_path):
    contrasts = cohort(tmp_path, PAIRS)
    io.write_tsv(pd.DataFrame({"sample": ["X", "Y"], "patient": ["X", "Y"]}), tmp_path / "samples.tsv")
    io.write_tsv(contrasts.assign(samples_a="X", samples_b="Y", paired=False), tmp_path / "contrasts.tsv")
    step("--contrast", "POST_vs_PRE", *FILES)
    status = read("test_expression.POST_vs_PRE.status.tsv").iloc[0]
    assert (status["status"], status["n_cells"]) == (keys.SKIPPED_TOO_FEW_CELLS, 0)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, ["--contrast", "X_vs_Y"], "no contrast X_vs_Y; it holds POST_vs_PRE"),
        ({"samples_a": "P0-POST,Z9"}, [], "sample Z9 of the contrast is not in samples.tsv"),
        ({"samples_a": "P0-PRE"}, [], "sample P0-PRE stands on both sides"),
        (None, ["--levels", "main_type,epi_cluster"], "no column epi_cluster in the fragments"),
        (None, ["--tumour", "P0.malignant.parquet", "twice.parquet"], "75 cells stand in another file too"),
        (None, ["--tumour", "clusters.parquet"], "clusters.parquet: no column tumour"),
    ],
)
def test_input_that_contradicts(step, tmp_path, change, options, message):
    contrasts = cohort(tmp_path, PAIRS)
    if change:
        io.write_tsv(contrasts.assign(**change), tmp_path / "contrasts.tsv")
    (tmp_path / "twice.parquet").write_bytes((tmp_path / "P0.malignant.parquet").read_bytes())
    base = [] if "--contrast" in options else ["--contrast", "POST_vs_PRE"]
    with pytest.raises(InputError, match=message.replace("75", r"\d+")):
        step(*base, *FILES, *options)
    assert not list(tmp_path.glob("*.status.tsv"))


def test_samples_without_patients_and_bad_usage(step, tmp_path, capsys):
    cohort(tmp_path, PAIRS)
    io.write_tsv(pd.DataFrame({"sample": ["P0-PRE"]}), tmp_path / "samples.tsv")
    with pytest.raises(InputError, match=r"samples\.tsv: columns patient are missing"):
        step("--contrast", "POST_vs_PRE", *FILES)
    wrong = ((["--contrast", "a b"], "is not an id"), (["--contrast", "c", "--levels", ","], "at least one level"))
    for options, message in wrong:
        with pytest.raises(SystemExit) as ended:
            step(*options, *FILES)
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_annotation_of_other_cells(step, tmp_path):
    cohort(tmp_path, PAIRS)
    annotation = pd.read_parquet(tmp_path / "annotation.parquet")
    io.write_fragment(annotation.iloc[1:], tmp_path / "annotation.parquet")
    with pytest.raises(InputError, match=r"annotation.parquet: 1 of 450 cells have no row"):
        step("--contrast", "POST_vs_PRE", *FILES)
