"""Principal components, scVI, harmony and bbknn as kernels, on drawn cohorts with known types and a batch effect."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import cohorts

from scresist import integration, normalise

SMALL = {"n_latent": 5, "n_layers": 1, "n_hidden": 16, "max_epochs": 3, "batch_size": 128, "threads": 1}


def drawn(n_cells: int, n_genes: int = 60) -> tuple[sparse.csr_matrix, np.ndarray]:
    rng = np.random.default_rng(3)
    batch = np.where(np.arange(n_cells) % 2, "a", "b")
    return sparse.csr_matrix(rng.poisson(np.where(batch == "a", 0.5, 1.0)[:, None], (n_cells, n_genes))), batch


def test_pca_agrees_with_the_singular_values():
    rng = np.random.default_rng(1)
    dense = rng.poisson(1.0, (40, 25)).astype(np.float32)
    values = integration.pca(sparse.csr_matrix(dense), 6, seed=1)
    u, s, vt = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    signs = np.sign(vt[np.arange(6), np.abs(vt[:6]).argmax(axis=1)])
    np.testing.assert_allclose(values, (u * s)[:, :6] * signs, atol=1e-3)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, integration.pca(sparse.csr_matrix(dense), 6, seed=1))
    # the sign is fixed and the start vector does not matter
    np.testing.assert_allclose(values, integration.pca(sparse.csr_matrix(dense), 6, seed=99), atol=1e-4)


@pytest.mark.parametrize(("n_cells", "width"), [(1, 1), (2, 1), (3, 2), (40, 24)])
def test_pca_of_few_cells(n_cells, width):
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (n_cells, 25)).astype(np.float32))
    values = integration.pca(x, 30, seed=1)
    assert values.shape == (n_cells, width)
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("n_cells", "asked", "size"),
    [
        (450, 0, 128),
        (129, 0, 127),  # 128 would leave one cell
        (257, 0, 127),  # 257 % 128 = 1, 257 % 127 = 3
        (20_000, 0, 128),
        (20_001, 0, 512),
        (20_481, 0, 511),  # 20,481 = 40 x 512 + 1
        (91_770, 0, 512),
        (100, 0, 100),
        (3, 2, 3),  # 2 would leave one cell, and there is no smaller size
        (3, 1, 3),
        (4, 1, 2),
        (2, 0, 2),
    ],
)
def test_minibatch_size(n_cells, asked, size):
    assert integration.minibatch_size(n_cells, asked) == size


def test_no_minibatch_ever_leaves_one_cell():
    for n_cells in range(2, 700):
        for asked in (0, 1, 2, 3, 64, 128, 10_000):
            size = integration.minibatch_size(n_cells, asked)
            assert 2 <= size <= n_cells
            assert n_cells % size != 1
    with pytest.raises(ValueError, match="1 cells make no minibatch"):
        integration.minibatch_size(1)


@pytest.mark.parametrize(
    ("n_cells", "asked", "expected"), [(450, 0, 400), (20_000, 0, 400), (91_770, 0, 87), (10**8, 0, 1), (9, 7, 7)]
)
def test_epochs(n_cells, asked, expected):
    assert integration.epochs(n_cells, asked) == expected  # min(400, round(400 x 20,000 / n)); 87 as in methods.md


def test_small_batches_and_pool():
    batch = np.repeat(["a", "b", "c", "d"], [30, 20, 6, 4])
    small = integration.small_batches(batch)
    assert small == ["c", "d"]
    assert pd.Series(integration.pool_small(batch, small)).value_counts().to_dict() == {"a": 30, "b": 20, integration.POOLED: 10}
    few = batch[:56]  # c alone is too small even for a pool: it joins the largest
    assert pd.Series(integration.pool_small(few, ["c"])).value_counts().to_dict() == {"a": 36, "b": 20}
    assert integration.small_batches(np.repeat(["a", "b"], 5)) == []  # all small: all are used


def test_check_loss():
    assert integration.check_loss(np.array([3.0, 2.0])).tolist() == [3.0, 2.0]
    with pytest.raises(integration.NanLossError, match="the loss is nan from epoch 2 of 3 on"):
        integration.check_loss(np.array([1.0, np.nan, np.nan]))
    with pytest.raises(integration.NanLossError, match="the loss is inf from epoch 1 of 1 on"):
        integration.check_loss(np.array([np.inf]))


def test_no_gpu_is_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert integration.accelerator("cpu") == "cpu"
    with pytest.raises(integration.NoDeviceError, match=r"torch \S+ \(built for .*\) finds no CUDA device"):
        integration.accelerator("gpu")


def test_scvi_seeds_and_last_minibatch(tmp_path, monkeypatch):
    """129 cells at 128: the size is moved. Two equal seeds: equal bytes; another seed differs; no file is left."""
    monkeypatch.chdir(tmp_path)
    counts, batch = drawn(129)
    one = integration.scvi(counts, batch, seed=1, **SMALL)
    two = integration.scvi(counts, batch, seed=1, **SMALL)
    other = integration.scvi(counts, batch, seed=2, **SMALL)
    assert one.values.shape == (129, 5)
    assert one.values.dtype == np.float32
    assert one.values.tobytes() == two.values.tobytes()
    assert np.abs(one.values - other.values).max() > 1e-3
    assert list(one.training) == list(integration.TRAINING)
    assert one.training["epoch"].tolist() == [1, 2, 3]
    pd.testing.assert_frame_equal(one.training, two.training)
    assert (one.training["elbo"] >= one.training["loss"]).all()  # the loss weighs the divergence less at first
    assert one.device == "cpu"
    assert one.small == []
    assert list(tmp_path.iterdir()) == []


def test_scvi_projects_small_batches_and_empty_cells():
    counts, batch = drawn(60)
    dense = counts.toarray()
    dense[4] = 0  # a cell without counts of these genes must not spoil the loss
    batch = np.array(["tiny"] * 9 + list(batch[9:]))
    found = integration.scvi(sparse.csr_matrix(dense), batch, seed=1, **SMALL)
    assert found.small == ["tiny"]
    assert np.isfinite(found.values).all()
    # the model never saw them: taking them away changes nothing for the others
    without = integration.scvi(sparse.csr_matrix(dense[9:]), batch[9:], seed=1, **SMALL)
    np.testing.assert_allclose(found.values[9:], without.values, atol=1e-5)


def test_scvi_undefined_loss(monkeypatch):
    import scvi

    def refuses(self, **options):
        raise ValueError("Expected parameter loc (Tensor of shape (128, 5)) ... but found invalid values:\ntensor([[nan, nan]])")

    def breaks(self, **options):
        raise ValueError("something else")

    counts, batch = drawn(40)
    monkeypatch.setattr(scvi.model.SCVI, "train", refuses)
    with pytest.raises(integration.NanLossError, match="Expected parameter loc"):
        integration.scvi(counts, batch, seed=1, **SMALL)
    monkeypatch.setattr(scvi.model.SCVI, "train", breaks)
    with pytest.raises(ValueError, match="something else"):
        integration.scvi(counts, batch, seed=1, **SMALL)


@pytest.fixture(scope="module")
def cohort():
    merged = cohorts.two_samples(60, shift=1.0)
    hvg = np.flatnonzero(merged.var["highly_variable"])
    x = normalise.log1p_cp10k(merged.layers["counts"])[:, hvg]
    return integration.pca(x, 20, 1), merged.obs["sample"].astype(str).to_numpy(), merged.obs["kind"].to_numpy(dtype=str)


def distance_of_batches(values: np.ndarray, batch: np.ndarray, kind: np.ndarray) -> float:
    """Mean over types of the distance between the batches' centres, in units of the spread within."""
    found = []
    for name in set(kind):
        a, b = (values[(kind == name) & (batch == one)] for one in sorted(set(batch)))
        spread = np.sqrt((a.var(axis=0) + b.var(axis=0)).sum() / 2)
        found.append(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) / spread)
    return float(np.mean(found))


def test_harmony_brings_batches_together(cohort):
    components, batch, kind = cohort
    found = integration.harmony(components, batch, seed=1)
    assert found.values.shape == components.shape
    assert found.values.dtype == np.float32
    assert distance_of_batches(found.values, batch, kind) < 0.5 * distance_of_batches(components, batch, kind)
    again = integration.harmony(components, batch, seed=1, threads=2)
    np.testing.assert_array_equal(found.values, again.values)
    assert found.graph is None


def test_harmony_shape_is_checked(cohort, monkeypatch):
    import types

    import harmonypy

    components, batch, _ = cohort
    monkeypatch.setattr(harmonypy, "run_harmony", lambda *a, **k: types.SimpleNamespace(Z_corr=components.T))
    with pytest.raises(ValueError, match=r"harmonypy returned \(20, 120\), expected cells x components \(120, 20\)"):
        integration.harmony(components, batch, seed=1)


def test_harmony_square_input():
    """As many cells as components: the orientation cannot be seen in the shape."""
    rng = np.random.default_rng(0)
    components, batch = rng.normal(size=(30, 30)).astype(np.float32), np.repeat(["a", "b"], 15)
    components[15:, 0] += 8  # the batch effect lies in the first component
    moved = np.abs(integration.harmony(components, batch, seed=1).values - components).mean(axis=0)
    assert moved[0] > 3 * moved[1:].max()


def test_few_cells_and_one_large_batch():
    rng = np.random.default_rng(0)
    components = rng.normal(size=(12, 4)).astype(np.float32)
    assert integration.harmony(components, np.repeat(["a", "b"], 6), seed=1).values.shape == (12, 4)
    batch = np.repeat(["a", "b"], [11, 1])
    alone = integration.harmony(components, batch, seed=1)
    np.testing.assert_array_equal(alone.values, components)  # nothing to correct
    assert alone.small == ["b"]
    assert integration.bbknn(components, batch).graph.shape == (12, 12)


def test_bbknn_balances_neighbours(cohort):
    components, batch, kind = cohort
    found = integration.bbknn(components, batch)
    graph = found.graph
    assert graph.shape == (120, 120)
    assert abs(graph - graph.T).max() == 0
    assert graph.dtype == np.float32
    assert 0 < graph.data.min() <= graph.data.max() <= 1
    np.testing.assert_array_equal(found.values, components)
    other = batch[:, None] != batch[None, :]
    share = (graph.toarray() * other).sum() / graph.sum()
    assert 0.3 < share < 0.7  # three neighbours in each of the two batches
    same = kind[:, None] == kind[None, :]
    assert (graph.toarray() * same).sum() / graph.sum() > 0.9
    two = integration.bbknn(components, batch, threads=2).graph
    assert (graph != two).nnz == 0
