"""CORRECT_AMBIENT: a planted ambient profile goes, the rest stays; refusals and skips."""

from __future__ import annotations

from pathlib import Path

import anndata
import correct_ambient
import numpy as np
import pandas as pd
import pytest
from scipy import io as scipy_io
from scipy import sparse

from scresist import contract, keys
from scresist.io import InputError

N_CELLS, N_EMPTY = 200, 400
GENES = [f"G{i:02d}" for i in range(60)]


def write_inputs(n_cells: int = N_CELLS, n_empty: int = N_EMPTY, barcode: str = "c") -> tuple[np.ndarray, np.ndarray]:
    """Two cell types with genes of their own (0-19, 20-39); a tenth of each cell's counts is ambient, all of it genes 0-19."""
    rng = np.random.default_rng(4)
    kinds = np.arange(n_cells) % 2
    native = np.zeros((n_cells, len(GENES)), dtype=int)
    for kind in range(2):
        profile = np.zeros(len(GENES))
        profile[20 * kind : 20 * kind + 20] = 1
        profile[40:] = 0.5
        native[kinds == kind] = rng.poisson(900 * profile / profile.sum(), size=((kinds == kind).sum(), len(GENES)))
    ambient = np.zeros(len(GENES))
    ambient[:20] = 1 / 20
    counts = native + rng.poisson(100 * ambient, size=native.shape)
    droplets = rng.poisson(40 * ambient, size=(n_empty, len(GENES)))
    names = [f"S1:c{i:04d}" for i in range(n_cells)]
    anndata.AnnData(
        obs=pd.DataFrame(dict.fromkeys(keys.IDENTITY, "S1"), index=names),
        var=pd.DataFrame({keys.GENE_ID: ""}, index=GENES),
        layers={keys.COUNTS: sparse.csr_matrix(counts.astype(np.int32))},
        uns={keys.UNS: {}},
    ).write_h5ad("S1.h5ad")
    raw = Path("raw_feature_bc_matrix")
    raw.mkdir(exist_ok=True)
    scipy_io.mmwrite(raw / "matrix.mtx", sparse.coo_matrix(np.vstack([counts, droplets]).T), field="integer")
    (raw / "features.tsv").write_text("".join(f"id_{g}\t{g}\tGene Expression\n" for g in GENES))
    barcodes = [f"{barcode}{i:04d}" for i in range(n_cells)] + [f"e{i:04d}" for i in range(n_empty)]
    (raw / "barcodes.tsv").write_text("".join(f"{b}\n" for b in barcodes))
    return native, kinds


@pytest.fixture
def correct(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*options: object) -> tuple[anndata.AnnData, pd.Series, pd.Series]:
        given = ["--sample", "S1", "--input", "S1.h5ad", "--raw", "raw_feature_bc_matrix", *map(str, options)]
        assert correct_ambient.main(given) == 0
        adata = contract.check(anndata.read_h5ad("S1.ambient.h5ad"), "S1.ambient.h5ad")
        row = pd.read_csv("S1.ambient.tsv", sep="\t", keep_default_na=False).iloc[0]
        return adata, row, pd.read_csv("correct_ambient.S1.status.tsv", sep="\t").iloc[0]

    return call


@pytest.mark.slow
def test_planted_ambient_counts_are_removed(correct):
    native, kinds = write_inputs()
    adata, row, state = correct("--max_epochs", 100)
    before, after = (adata.layers[name].toarray() for name in (keys.COUNTS_RAW, keys.COUNTS))
    foreign = np.ix_(kinds == 1, range(20))  # genes that the second type does not express: all ambient
    own = np.ix_(kinds == 1, range(20, 40))
    assert native[foreign].sum() == 0
    assert after[foreign].sum() <= 0.3 * before[foreign].sum()
    assert after[own].sum() >= 0.8 * before[own].sum()
    assert (after <= before).all()
    assert (state["status"], row["n_empty_droplets"], row["n_cells_in_raw"]) == ("ok", N_EMPTY, N_CELLS)
    assert {name.split()[0] for name in row["top_ambient_genes"].split(", ")} <= set(GENES[:20])
    first = after.copy()
    again = correct("--max_epochs", 100)[0].layers[keys.COUNTS].toarray()
    assert (first == again).all()


def test_profile_and_droplets_by_hand():
    raw = sparse.csr_matrix(np.array([[50, 50, 0], [2, 1, 1], [0, 0, 0], [3, 0, 0], [0, 99, 1]]))
    rows = correct_ambient.empty_droplets(raw, ["a", "b", "c", "d", "e"], {"d"}, 100)
    assert rows.tolist() == [1]  # a and e have 100 counts, c none, d is a cell
    profile = correct_ambient.ambient_profile(raw, pd.Series(["A", "B", "B"]), rows, pd.Index(["A", "B", "Z"]))
    assert profile.tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("n_cells", "n_empty", "word"),
    [(0, 60, "skipped_too_few_cells"), (49, 60, "skipped_too_few_cells"), (60, 49, "skipped_no_input")],
)
def test_too_little_to_train_leaves_the_counts(n_cells, n_empty, word, correct):
    write_inputs(n_cells, n_empty)
    adata, row, state = correct()
    assert state["status"] == row["status"] == word
    assert (adata.layers[keys.COUNTS] != adata.layers[keys.COUNTS_RAW]).nnz == 0


def test_raw_matrix_of_another_library_is_refused(correct):
    write_inputs(60, 60, barcode="x")
    with pytest.raises(InputError, match="none of the 60 cells is in the unfiltered matrix raw_feature_bc_matrix"):
        correct()


def test_missing_raw_matrix_is_named(correct):
    write_inputs(60, 60)
    with pytest.raises(InputError, match="sample S1, unfiltered matrix nowhere: nowhere does not exist"):
        correct("--raw", "nowhere")
