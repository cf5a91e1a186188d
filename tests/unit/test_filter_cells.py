"""FILTER_CELLS: sums add up, samples of 0, 1, 30 and 129 cells end in a status."""

from __future__ import annotations

import anndata
import filter_cells
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import contract, io, keys, quality


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(
        n: int,
        flagged: dict[str, int] | None = None,
        n_doublets: int = 0,
        verdict: str = quality.PASS,
        *options: object,
        shuffle=False,
    ):
        names = [f"S1:c{i:04d}" for i in range(n)]
        obs = pd.DataFrame(
            {keys.SAMPLE: "S1", keys.PATIENT: "001", keys.PHASE: "PRE", keys.BATCH: "none"}, index=names, dtype=object
        )
        adata = anndata.AnnData(
            obs=obs,
            var=pd.DataFrame({keys.IS_MT: [False, False]}, index=["A", "B"]),
            layers={keys.COUNTS: sparse.csr_matrix(np.arange(2 * n, dtype=np.int32).reshape(n, 2))},
            uns={keys.UNS: {}},
        )
        adata.write_h5ad("S1.h5ad")
        flags = pd.DataFrame({keys.CELL: names, **dict.fromkeys(keys.QC_METRICS, 1.0), **dict.fromkeys(keys.QC_FLAGS, False)})
        at = 0
        for column, number in (flagged or {}).items():
            flags.loc[at : at + number - 1, [column, keys.FLAG_ANY]] = True
            at += number
        calls = pd.DataFrame({keys.CELL: names, **dict.fromkeys(keys.DOUBLET_COLUMNS, False)})
        calls.loc[at : at + n_doublets - 1, keys.DOUBLET] = True
        if shuffle:
            flags, calls = flags.sample(frac=1, random_state=1), calls.sample(frac=1, random_state=2)
        io.write_fragment(flags, "S1.flags.parquet")
        io.write_fragment(calls, "S1.doublets.parquet")
        io.write_tsv(
            pd.DataFrame([{"sample": "S1", "crit_genes": verdict, "crit_reads": "not_given", "verdict": verdict}]),
            "S1.sample_qc.tsv",
        )
        given = ["--sample", "S1", "--input", "S1.h5ad", "--flags", "S1.flags.parquet", "--doublets", "S1.doublets.parquet"]
        assert filter_cells.main([*given, "--sample_qc", "S1.sample_qc.tsv", *map(str, options)]) == 0
        row = pd.read_csv("S1.filter.tsv", sep="\t").iloc[0]
        kept = contract.check(anndata.read_h5ad("S1.filtered.h5ad"), "S1.filtered.h5ad")
        cells = io.read_fragment("S1.cells.parquet")
        assert row[[c for c in row.index if c.startswith("n_") and c != "n_in"]].sum() == row["n_in"] == len(cells) == n
        assert kept.n_obs == row["n_out"] == cells[keys.KEPT].sum() == (cells[keys.DROP_REASON] == "").sum()
        assert kept.obs_names.tolist() == cells.index[cells[keys.KEPT]].tolist()
        state = pd.read_csv("filter_cells.S1.status.tsv", sep="\t").iloc[0]
        assert state["status"] == row["status"]
        return kept, row, cells, state

    return call


def test_reasons_add_up_and_follow_the_cell_not_the_row(run):
    flagged = {keys.FLAG_LOW_GENES: 2, keys.FLAG_LOW_COUNTS: 3, keys.FLAG_HIGH_MT: 4, keys.FLAG_MAD_TOP20: 5}
    kept, row, cells, state = run(129, flagged, 6, shuffle=True)
    assert row[["n_low_genes", "n_low_counts", "n_high_mt", "n_mad", "n_doublet", "n_sample_skipped", "n_out"]].tolist() == [
        2,
        3,
        4,
        5,
        6,
        0,
        109,
    ]
    assert state["status"] == "ok"
    assert kept.uns[keys.UNS]["filter"]["verdict"] == "ok"
    assert kept.layers[keys.COUNTS][0].toarray().tolist() == [[40, 41]]  # cell 20 is the first that is kept
    assert cells.columns.tolist() == [
        *keys.IDENTITY,
        *keys.QC_METRICS,
        *keys.QC_FLAGS,
        *keys.DOUBLET_COLUMNS,
        keys.KEPT,
        keys.DROP_REASON,
    ]
    assert cells[keys.PATIENT].unique().tolist() == ["001"]


@pytest.mark.parametrize(
    ("n", "word"),
    [
        (0, "failed_no_cells"),
        (1, "skipped_too_few_cells"),
        (30, "skipped_too_few_cells"),
        (49, "skipped_too_few_cells"),
        (50, "ok"),
        (129, "ok"),
    ],
)
def test_samples_of_any_size(n, word, run):
    kept, _, cells, state = run(n)
    assert state["status"] == kept.uns[keys.UNS]["filter"]["verdict"] == word
    assert kept.n_obs == (n if word == "ok" else 0)
    if word == "skipped_too_few_cells":
        assert state["reason"] == f"{n} of {n} cells pass, needed 50 (--min_cells_sample)"
        assert set(cells[keys.DROP_REASON]) == {"sample_skipped"}


def test_all_cells_dropped(run):
    kept, _, _, state = run(60, {keys.FLAG_HIGH_MT: 60})
    assert (kept.n_obs, state["status"], state["reason"]) == (0, "failed_no_cells", "0 of 60 cells pass")


def test_failed_criteria_flag_or_drop(run):
    kept, _, _, state = run(60, None, 0, quality.FAIL)
    assert (kept.n_obs, state["status"]) == (60, "warning")
    assert state["reason"] == "the sample fails the criteria: genes; kept (--on_sample_fail flag)"
    assert kept.uns[keys.UNS]["filter"]["verdict"] == "ok"
    kept, row, _, state = run(60, None, 0, quality.FAIL, "--on_sample_fail", "drop")
    assert (kept.n_obs, row["n_sample_skipped"], state["status"]) == (0, 60, "skipped_sample_criteria")


def test_missing_rows_are_named(run):
    run(60)
    io.write_tsv(pd.DataFrame([{"sample": "S2", "verdict": "pass"}]), "S1.sample_qc.tsv")
    given = ["--sample", "S1", "--input", "S1.h5ad", "--flags", "S1.flags.parquet", "--doublets", "S1.doublets.parquet"]
    with pytest.raises(io.InputError, match="0 rows of sample S1, expected one"):
        filter_cells.main([*given, "--sample_qc", "S1.sample_qc.tsv"])
    io.write_fragment(pd.read_parquet("S1.flags.parquet").iloc[1:], "S1.flags.parquet")
    with pytest.raises(io.InputError, match="1 of 60 cells have no row, the first is S1:c0000"):
        filter_cells.main([*given, "--sample_qc", "S1.sample_qc.tsv"])
