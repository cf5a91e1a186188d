"""CLUSTER_COHORT through its command line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import io
from tests.data import cohorts

RESOLUTIONS = ["0.2", "0.4", "0.6", "0.8", "1.0", "1.5", "2.0"]


@pytest.fixture
def inputs(tmp_path):
    """Write merged.h5ad, an embedding with the three types far apart and an empty graph; returns a function for the options."""

    def write(merged=None, embedding=None, graph=None):
        merged = cohorts.two_samples() if merged is None else merged
        merged.write_h5ad(tmp_path / "merged.h5ad")
        if embedding is None:
            at = {kind: index for index, kind in enumerate(cohorts.TYPES)}
            centre = 10 * np.eye(3, 4)[[at[kind] for kind in merged.obs["kind"]]]
            values = centre + np.random.default_rng(0).normal(size=(merged.n_obs, 4))
            embedding = pd.DataFrame(values, columns=[f"latent_{i + 1}" for i in range(4)])
            embedding.insert(0, "cell", merged.obs_names)
            embedding = embedding.sample(frac=1, random_state=0)  # joined by cell, not by place
        io.write_fragment(embedding, tmp_path / "embedding.parquet")
        sparse.save_npz(tmp_path / "graph.npz", sparse.csr_matrix((0, 0)) if graph is None else graph)
        return ["--input", "merged.h5ad", "--embedding", "embedding.parquet", "--graph", "graph.npz"], merged

    return write


def test_outputs_and_a_second_run_of_equal_bytes(run_script, inputs, tmp_path):
    options, merged = inputs()
    done = run_script("cluster_cohort", *options, cwd=tmp_path)
    assert done.stderr == ""
    names = ("clusters.parquet", "clusters.tsv", "markers.tsv", "cluster_cohort.cohort.status.tsv")
    first = [(tmp_path / name).read_bytes() for name in names]
    run_script("cluster_cohort", *options, cwd=tmp_path)
    assert first == [(tmp_path / name).read_bytes() for name in names]
    cells = io.read_fragment(tmp_path / "clusters.parquet")
    assert list(cells) == ["umap_1", "umap_2", *(f"leiden_{r}" for r in RESOLUTIONS), "cluster"]
    assert cells.index.tolist() == merged.obs_names.tolist()
    assert cells["cluster"].equals(cells["leiden_1.0"].rename("cluster"))
    assert np.isfinite(cells[["umap_1", "umap_2"]].to_numpy()).all()
    kinds = merged.obs["kind"].to_numpy()
    assert cells["leiden_0.2"].groupby(kinds).nunique().tolist() == [1, 1, 1]
    assert cells["leiden_0.2"].nunique() == 3
    table = io.read_tsv(tmp_path / "clusters.tsv", dtype={"resolution": str, "cluster": str})
    assert list(table) == [
        "resolution", "cluster", "n_cells", "n_samples", "n_patients", "top_sample_share", "jaccard_stability", "ari_stability",
    ]  # fmt: skip
    assert list(dict.fromkeys(table["resolution"])) == RESOLUTIONS
    assert (table.groupby("resolution")["n_cells"].sum() == merged.n_obs).all()
    coarse = table[table["resolution"] == "0.2"]
    assert coarse["n_samples"].tolist() == [2, 2, 2]
    assert coarse["top_sample_share"].tolist() == pytest.approx([0.5] * 3)
    assert coarse["ari_stability"].tolist() == pytest.approx([1.0] * 3)
    markers = io.read_tsv(tmp_path / "markers.tsv", dtype={"cluster": str})
    assert markers.groupby("cluster").size().max() <= 50
    status = io.read_tsv(tmp_path / "cluster_cohort.cohort.status.tsv")
    assert status["status"].tolist() == ["ok"]
    assert json.loads((tmp_path / "cluster_cohort.cohort.provenance.json").read_text())["packages"]["illico"]


def test_a_given_graph_decides(run_script, inputs, tmp_path):
    merged = cohorts.two_samples()
    half = np.arange(merged.n_obs) < merged.n_obs // 2
    graph = sparse.csr_matrix((half[:, None] == half[None]).astype(np.float32) - np.eye(merged.n_obs, dtype=np.float32))
    options, _ = inputs(merged, graph=graph)
    run_script("cluster_cohort", *options, "--resolutions", "0.5", "--resolution", "0.5", cwd=tmp_path)
    cells = io.read_fragment(tmp_path / "clusters.parquet")
    assert [name for name in cells if name.startswith("leiden")] == ["leiden_0.5", "leiden_2.0"]  # 2.0 is for ANNOTATE_CELLS
    assert cells["cluster"].groupby(half).nunique().tolist() == [1, 1]
    assert cells["cluster"].nunique() == 2


@pytest.mark.parametrize("n_cells", [1, 2, 19])
def test_too_few_cells_are_one_cluster(run_script, inputs, tmp_path, n_cells):
    merged = cohorts.two_samples()[:n_cells].copy()
    options, _ = inputs(merged)
    run_script("cluster_cohort", *options, cwd=tmp_path)
    cells = io.read_fragment(tmp_path / "clusters.parquet")
    assert cells["cluster"].tolist() == ["0"] * n_cells
    assert cells["umap_1"].isna().all()
    assert (tmp_path / "markers.tsv").read_text().startswith("cluster\tgene\tlog2_fc")
    status = io.read_tsv(tmp_path / "cluster_cohort.cohort.status.tsv")
    assert status["status"].tolist() == ["skipped_too_few_cells"]
    assert status["reason"].tolist() == [f"{n_cells} cells, 20 needed; they are one cluster"]


def frame(merged, **columns):
    return pd.DataFrame({"cell": merged.obs_names, **columns})


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda m: frame(m, X_pca_1=0.0), "expected the columns latent_1, ..., found X_pca_1"),
        (lambda m: frame(m, latent_1=0.0, pc_1=1.0), "expected the columns latent_1, ..., found latent_1, pc_1"),
        (lambda m: frame(m, latent_1=np.nan), "120 of 120 cells have coordinates that are missing or infinite"),
        (lambda m: frame(m, latent_1=0.0).iloc[1:], "1 of 120 cells have no row, the first is A:C00000"),
    ],
)
def test_wrong_embedding(run_script, inputs, tmp_path, made, message):
    merged = cohorts.two_samples()
    options, _ = inputs(merged, made(merged))
    done = run_script("cluster_cohort", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert message in done.stderr
    assert not (tmp_path / "clusters.parquet").exists()


def test_graph_of_other_cells(run_script, inputs, tmp_path):
    options, _ = inputs(graph=sparse.identity(7, format="csr"))
    done = run_script("cluster_cohort", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "graph.npz: 7 cells, merged.h5ad has 120" in done.stderr


@pytest.mark.parametrize(("value", "message"), [("a,b", "is not a list of numbers"), ("0,1", "they are above 0")])
def test_wrong_resolutions(run_script, inputs, tmp_path, value, message):
    options, _ = inputs()
    done = run_script("cluster_cohort", *options, "--resolutions", value, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
