"""STRATIFY_MARKER through its command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import expression, io, keys
from scresist.io import InputError
from tests.data import cohorts

MARKER = "GENE0050"
LINKED = [f"GENE{i:04d}" for i in range(6)]  # up by a factor of three in cells with the marker
TABLES = ("marker_share.tsv", "marker_de.tsv.gz", "marker_top.tsv", "marker_scores.tsv", "marker_groups.tsv", "rankings.tsv.gz")
FILES = ["--input", "merged.h5ad", "--annotation", "annotation.parquet"]


def cohort(folder: Path, patients: tuple[str, ...] = ("P", "Q", "R"), n_cells: int = 240, order: int | None = None) -> list[str]:
    """Samples of one patient each; a third of the epithelial cells are in a state that shows the marker and LINKED."""
    made = []
    for number, patient in enumerate(patients):
        phase = "PRE" if number % 2 else "PRE-R"
        one = cohorts.sample(f"{patient}1", n_cells, number, patient=patient, phase=phase, n_plain=180, shift=0.1)
        rng = np.random.default_rng(50 + number)
        counts = one.layers["counts"].toarray()
        state = (one.obs["kind"] == "Epithelial").to_numpy() & (rng.random(n_cells) < 0.4)
        at = one.var_names.get_indexer(LINKED)
        counts[:, one.var_names.get_loc(MARKER)] = np.where(state, 1 + rng.poisson(1.0, n_cells), 0)
        counts[np.ix_(state, at)] = 3 * counts[np.ix_(state, at)] + rng.poisson(2, (int(state.sum()), len(at)))
        counts = rng.binomial(counts, rng.uniform(0.4, 1.0, (n_cells, 1)))  # cells of unlike depth, as there always are
        counts[state, one.var_names.get_loc(MARKER)] += 1
        one.layers["counts"] = sparse.csr_matrix(counts)
        one.obs["state"] = state
        made.append(one)
    merged = cohorts.merged(made)
    if order is not None:
        merged = merged[np.random.default_rng(order).permutation(merged.n_obs)].copy()
    names, kind, state = merged.obs_names, merged.obs["kind"].astype(str).to_numpy(), merged.obs["state"].to_numpy(dtype=bool)
    patient = merged.obs["patient"].astype(str).to_numpy()
    merged.write_h5ad(folder / "merged.h5ad")
    io.write_fragment(pd.DataFrame({"cell": names, "main_type": kind, "lineage": "x"}), folder / "annotation.parquet")
    tumour = kind == "Epithelial"
    score = np.random.default_rng(1).normal(size=len(names))[np.argsort(np.argsort(names))] + 2 * state
    modules = pd.DataFrame({"cell": names, "module_M1": score, "module_M2": np.abs(score) % 0.1})
    io.write_fragment(modules[tumour], folder / "modules.parquet")
    io.write_fragment(pd.DataFrame({"cell": names, "epi_cluster": np.where(state, "1", "0")})[tumour], folder / "epi.parquet")
    written = []
    for one in patients:
        mine = tumour & (patient == one)
        io.write_fragment(pd.DataFrame({"cell": names[mine], "tumour": True}), folder / f"{one}.malignant.parquet")
        io.write_fragment(pd.DataFrame({"cell": names[mine], "clone": f"{one}.C1"}), folder / f"{one}.clones.parquet")
        written.append(f"{one}.malignant.parquet")
    return written


@pytest.fixture
def step(root, tmp_path, monkeypatch):
    """The script called within this process in tmp_path: imports are paid once for all tests."""
    spec = importlib.util.spec_from_file_location("step_stratify_marker", root / "bin" / "stratify_marker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return lambda *args: module.main([str(arg) for arg in args])


def read(name: str, marker: str = MARKER):
    return io.read_tsv(Path(f"{marker}.{name}"))


def state_of(marker: str = MARKER):
    return io.read_tsv(Path(f"stratify_marker.{marker}.status.tsv")).iloc[0]


def test_outputs_and_a_second_run_of_equal_bytes(run_script, step, tmp_path):
    tumour = cohort(tmp_path)
    clones = sorted(path.name for path in tmp_path.glob("*.clones.parquet"))
    more = ["--modules", "modules.parquet", "--groups", "epi.parquet", *clones]
    options = ["--marker", MARKER, *FILES, "--tumour", *tumour, *more]
    done = run_script("stratify_marker", *options, cwd=tmp_path)
    assert done.stderr == ""
    names = [*(f"{MARKER}.{table}" for table in (*TABLES, "marker_volcano.png")), f"stratify_marker.{MARKER}.status.tsv"]
    first = [Path(name).read_bytes() for name in names]
    cohort(tmp_path, order=5)  # the same cells in another order
    run_script("stratify_marker", *options, cwd=tmp_path)  # a process of its own: other tests may have set matplotlib's defaults
    assert first == [Path(name).read_bytes() for name in names]

    status = state_of()
    assert (status["status"], status["n_cells"], status["n_samples"], status["n_patients"]) == ("ok", 240, 3, 3)
    share = read("marker_share.tsv")
    assert share["n"].tolist() == [80] * 3 and (share["n_matched"] <= share["n_positive"]).all() and share["used"].all()
    genes = read("marker_de.tsv.gz")
    assert MARKER not in set(genes["gene"])  # the marker is no part of its own result
    assert genes.groupby(["matched", "unit"]).size().index.tolist() == [("no", "cell"), ("yes", "cell"), ("yes", "patient")]
    patients = genes[genes["unit"] == "patient"]
    assert set(LINKED) <= set(patients.loc[patients["direction"] == "up", "gene"]) and set(patients["evidence"]) == {"replicated"}
    cells = genes[(genes["unit"] == "cell") & (genes["matched"] == "yes")].set_index("gene")
    assert (cells.loc[LINKED, "n_samples_same_sign"] == 3).all() and (cells.loc[LINKED, "n_samples_compared"] == 3).all()
    assert (cells["n_cells_a"] == cells["n_cells_b"]).all() and cells["n_cells_a"].iloc[0] == share["n_matched"].sum()
    scores = read("marker_scores.tsv")
    whole = scores[(scores["sample"] == "all") & (scores["score"] == "module_M1")].iloc[0]
    assert whole["effect"] == pytest.approx(2, abs=0.4) and (whole["n_patients_a"], whole["p_min_attainable"]) == (3, 0.25)
    groups = read("marker_groups.tsv")
    assert set(groups["grouping"]) == {"phase", "epi_cluster", "clone"}
    assert groups.set_index("group").loc["1", "share"] == 1.0 and groups.set_index("group").loc["0", "share"] == 0.0
    ranking = read("rankings.tsv.gz")
    assert set(ranking["group"]) == {"tumour"} and set(ranking["contrast"]) == {f"{MARKER}_pos_vs_neg"}
    assert set(ranking["gene"].head(6)) == set(LINKED) and MARKER not in set(ranking["gene"])
    top = read("marker_top.tsv")
    assert set(top.loc[top["side"] == "up", "gene"].head(6)) == set(LINKED) and top["padj_unmatched"].notna().all()


def test_one_patient_has_cells_only(step, tmp_path):
    tumour = cohort(tmp_path, ("P",))
    step("--marker", MARKER, *FILES, "--tumour", *tumour)
    status = state_of()
    assert status["status"] == keys.NO_REPLICATES and "1 against 1, 2 needed" in status["reason"]
    assert set(read("marker_de.tsv.gz")["unit"]) == {"cell"} and set(read("rankings.tsv.gz")["evidence"]) == {keys.CELL_LEVEL}
    assert read("marker_scores.tsv").empty and read("marker_groups.tsv")["p_value"].isna().all()


def test_phases_and_rules(step, tmp_path):
    tumour = cohort(tmp_path)
    step("--marker", MARKER, *FILES, "--tumour", *tumour, "--phases_used", "PRE-R", "--rule", "count>1")
    share = read("marker_share.tsv").set_index("sample")
    assert share["used"].tolist() == [True, False, True]
    assert read("marker_de.tsv.gz")["n_patients_a"].unique().tolist() == [2]
    step("--marker", MARKER, *FILES, "--tumour", *tumour, "--phases_used", "POST")
    assert state_of()["status"] == keys.SKIPPED_TOO_FEW_CELLS and "asked for (none has samples)" in state_of()["reason"]
    step("--marker", "GENE0001", *FILES, "--level", "B", "--rule", "quantile:0.5")
    assert set(read("rankings.tsv.gz", "GENE0001")["group"]) == {"B"} and state_of("GENE0001")["status"] == "ok"
    assert read("marker_share.tsv", "GENE0001")["share"].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("options", "word", "reason"),
    [
        (["--marker", "MUC3A", "--level", "B"], keys.NOT_ESTIMABLE, "gene_absent: MUC3A is not among"),
        (["--marker", MARKER], keys.SKIPPED_NO_INPUT, "no tumour calls were given"),
        (["--marker", MARKER, "--tumour", "none.parquet"], keys.SKIPPED_TOO_FEW_CELLS, "no tumour cells in the cohort"),
        (["--marker", MARKER, "--level", "B"], keys.SKIPPED_TOO_FEW_CELLS, "0 positive, 240 negative and 0 matched cells"),
    ],
)
def test_without_a_result_the_tables_are_empty_with_header(step, tmp_path, options, word, reason):
    cohort(tmp_path)
    io.write_fragment(pd.DataFrame({"cell": ["P1:C00000"], "tumour": [False]}), tmp_path / "none.parquet")
    step(*options, *FILES)
    marker = options[1]
    assert state_of(marker)["status"] == word and reason in state_of(marker)["reason"]
    for table in TABLES:
        assert len(read(table, marker).columns) > 5
        assert read(table, marker).empty or table in ("marker_share.tsv", "marker_groups.tsv")
    assert Path(f"{marker}.marker_volcano.png").read_bytes().startswith(b"\x89PNG")
    assert list(read("rankings.tsv.gz", marker)) == list(expression.RANKING_COLUMNS)


def test_input_that_contradicts(step, tmp_path, capsys):
    cohort(tmp_path)
    with pytest.raises(InputError, match=r"--level Tumor: no such main type .*; use tumour or one of B, Epithelial, T_NK"):
        step("--marker", MARKER, *FILES, "--level", "Tumor")
    with pytest.raises(InputError, match=r"epi\.parquet: no column module_"):
        step("--marker", MARKER, *FILES, "--tumour", "P.malignant.parquet", "--modules", "epi.parquet")
    with pytest.raises(InputError, match=r"epi\.parquet: no column tumour"):
        step("--marker", MARKER, *FILES, "--tumour", "epi.parquet")
    for options, message in ((["--marker", "A/B"], "is not an id"), (["--marker", "A", "--rule", "count>=0"], "is not a rule")):
        with pytest.raises(SystemExit) as ended:
            step(*options, *FILES)
        assert ended.value.code == 2 and message in capsys.readouterr().err
