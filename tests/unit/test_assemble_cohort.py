"""ASSEMBLE_COHORT through its command line, on eight cells of two samples."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import io, keys, status

CELLS = [f"S{s}:{b}" for s in (1, 2) for b in "abcd"]
KEPT = [cell for cell in CELLS if not cell.endswith("d")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Inputs of a small run."""
    random = np.random.default_rng(0)
    counts = sparse.csr_matrix(random.integers(1, 9, (len(KEPT), 5)).astype(np.int32))
    x = sparse.csr_matrix(np.log1p(counts.toarray() / counts.sum(axis=1) * keys.TARGET_SUM).astype(np.float32))
    obs = pd.DataFrame({"sample": [c[:2] for c in KEPT], "patient": "P", "phase": "PRE", "batch": "none"}, index=KEPT)
    var = pd.DataFrame({"gene_id": ["E1", None, "E3", "E4", "E5"], "mt": False, "highly_variable": True}, index=list("ABCDE"))
    merged = anndata.AnnData(X=x, obs=obs, var=var, layers={"counts": counts}, uns={"scresist": {}, "log1p": {"base": None}})
    merged.write_h5ad(tmp_path / "merged.h5ad")
    for sample in ("S2", "S1"):
        mine = [c for c in CELLS if c.startswith(sample)]
        frame = pd.DataFrame({"cell": mine, "sample": sample, "patient": "P", "phase": "PRE", "batch": "none"})
        frame["n_counts"] = range(len(mine))
        frame["flag_any"] = [c not in KEPT for c in mine]
        frame["doublet_call"] = pd.array([False, True, None, None], dtype="boolean")
        frame["kept"] = [c in KEPT for c in mine]
        frame["drop_reason"] = ["" if c in KEPT else "mad" for c in mine]
        io.write_fragment(frame, tmp_path / f"{sample}.cells.parquet")
    latent = pd.DataFrame({"cell": KEPT, **{f"latent_{k}": np.arange(len(KEPT)) * k for k in (2, 1)}})
    io.write_fragment(latent.sample(frac=1, random_state=1), tmp_path / "embedding.parquet")
    clusters = pd.DataFrame({"cell": KEPT, "umap_1": np.arange(6.0), "umap_2": 1.0, "leiden_1.0": list("010101"), "cluster": "0"})
    io.write_fragment(clusters.iloc[::-1], tmp_path / "clusters.parquet")
    io.write_fragment(pd.DataFrame({"cell": KEPT, "main_type": ["B", "NK"] * 3}), tmp_path / "annotation.parquet")
    status.write([status.StatusRow("merge_cohort", "cohort", "cohort", "ok", n_cells=6)], "merge_cohort", "cohort", tmp_path)
    return tmp_path


ARGS = (
    *("--input", "merged.h5ad", "--cells", "S1.cells.parquet", "S2.cells.parquet", "--latent_key", "X_scVI"),
    *("--fragments", "embedding.parquet", "clusters.parquet", "annotation.parquet"),
    *("--status", "merge_cohort.cohort.status.tsv"),
)


def test_joins_by_id_into_both_objects(run, run_script):
    run_script("assemble_cohort", *ARGS, cwd=run)
    adata = anndata.read_h5ad(run / "cohort.h5ad")
    assert list(adata.obs_names) == KEPT and set(adata.layers) == {"counts"}
    # the embedding was shuffled on its way: row i still holds i and 2i
    assert adata.obsm["X_scVI"].tolist() == [[i, 2 * i] for i in range(6)]
    assert adata.obsm["X_umap"][:, 0].tolist() == list(range(6))
    assert adata.obs["main_type"].tolist() == ["B", "NK"] * 3
    assert adata.obs["doublet_call"].tolist() == ["no", "yes", "unknown"] * 2
    cells = pd.read_parquet(run / "cells.parquet")
    assert cells["cell"].tolist() == CELLS and cells["kept"].sum() == 6
    assert cells.loc[cells["cell"] == "S1:d", "main_type"].isna().all()
    assert "latent_1" not in cells and "umap_1" in cells
    table = io.read_tsv(run / "columns.tsv").set_index("column")
    assert table.loc["main_type", "n_missing"] == 2 and table.loc["subtype", "type"] == "absent"
    assert adata.uns["scresist"]["status"]["step"].tolist() == ["merge_cohort"]
    row = io.read_tsv(run / "assemble_cohort.cohort.status.tsv", dtype=str).iloc[0]
    assert row["status"] == "warning" and "subtype" in row["reason"] and row["n_cells"] == "6"


def test_order_of_files_and_rows_changes_no_byte(run, run_script):
    run_script("assemble_cohort", *ARGS, cwd=run)
    first = {name: (run / name).read_bytes() for name in ("cells.parquet", "columns.tsv", "cohort.h5ad")}
    frame = pd.read_parquet(run / "annotation.parquet")
    io.write_fragment(frame.iloc[::-1], run / "annotation.parquet")
    args = list(ARGS)
    args[3], args[4] = args[4], args[3]
    run_script("assemble_cohort", *args, cwd=run)
    assert [name for name, content in first.items() if (run / name).read_bytes() != content] == []


def test_no_encoding_that_older_readers_lack(run, run_script):
    """anndata 0.10 knows these encodings (its release notes); newer ones must not appear in the file."""
    run_script("assemble_cohort", *ARGS, cwd=run)
    known = {"anndata", "array", "csr_matrix", "csc_matrix", "dataframe", "dict", "string", "string-array", "categorical"}
    found = set()
    with h5py.File(run / "cohort.h5ad") as file:
        file.visititems(lambda name, item: found.add(item.attrs.get("encoding-type", "array")))
    assert found - known - {"numeric-scalar"} == set()


def test_opens_in_an_older_anndata(run, run_script):
    """With SCRESIST_OLD_PYTHON naming a Python that has anndata 0.10, the file is read by it."""
    old = os.environ.get("SCRESIST_OLD_PYTHON")
    if not old:
        pytest.skip("SCRESIST_OLD_PYTHON is not set (a Python with anndata 0.10)")
    run_script("assemble_cohort", *ARGS, cwd=run)
    code = "import anndata as a; d = a.read_h5ad('cohort.h5ad'); print(d.shape, d.obs['main_type'].tolist()[:2], sorted(d.obsm))"
    done = subprocess.run([old, "-c", code], cwd=run, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(6, 5) ['B', 'NK'] ['X_scVI', 'X_umap']", done.stderr


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "annotation.parquet",
            lambda f: pd.concat([f, f.iloc[:1].assign(cell="S9:x")]),
            "1 of 7 cells are unknown to the cohort",
        ),
        ("S1.cells.parquet", lambda f: f.assign(kept=True), "1 cells are marked as kept but missing from the merged matrix"),
        ("S1.cells.parquet", lambda f: f.assign(kept=False), "3 cells are in the merged matrix but not marked as kept"),
        ("annotation.parquet", lambda f: f.assign(sample="S1"), "column `sample` stands in cells too"),
    ],
)
def test_refuses_files_of_another_run(run, run_script, file, change, message):
    io.write_fragment(change(pd.read_parquet(run / file)), run / file)
    done = run_script("assemble_cohort", *ARGS, cwd=run, check=False)
    assert done.returncode == 65 and message in done.stderr
    assert not (run / "cohort.h5ad").exists()


def test_a_cell_in_two_samples_is_refused(run, run_script):
    frame = pd.read_parquet(run / "S1.cells.parquet")
    io.write_fragment(frame, run / "S2.cells.parquet")
    done = run_script("assemble_cohort", *ARGS, cwd=run, check=False)
    assert done.returncode == 65 and "cells: 4 cells occur more than once" in done.stderr
