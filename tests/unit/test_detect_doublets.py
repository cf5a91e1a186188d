"""DETECT_DOUBLETS: planted and demuxlet doublets are found; seeded; small samples are skipped."""

from __future__ import annotations

from pathlib import Path

import anndata
import detect_doublets
import load_sample
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scresist import io, keys
from scresist.io import InputError

MARKER_GENES = {"B": ["MS4A1", "CD79A"], "T_NK": ["CD3D", "CD3E"], "Mast": ["KIT", "CPA3"]}


def auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mann-Whitney U / (n1 n2)."""
    return stats.mannwhitneyu(scores[truth], scores[~truth]).statistic / (truth.sum() * (~truth).sum())


def write_inputs(counts: np.ndarray, genes: list[str], flagged: int = 0) -> None:
    names = [f"S1:c{i:04d}" for i in range(len(counts))]
    order = np.argsort(genes)
    anndata.AnnData(
        obs=pd.DataFrame(dict.fromkeys(keys.IDENTITY, "S1"), index=names),
        var=pd.DataFrame(index=np.array(genes, dtype=object)[order]),
        layers={keys.COUNTS: sparse.csr_matrix(counts[:, order].astype(np.int32))},
        uns={keys.UNS: {}},
    ).write_h5ad("S1.h5ad")
    flags = np.arange(len(names)) < flagged
    io.write_fragment(pd.DataFrame({keys.CELL: names, keys.FLAG_ANY: flags}), Path("S1.flags.parquet"))
    rows = [(g, group, "marker") for group, members in MARKER_GENES.items() for g in members]
    io.write_tsv(pd.DataFrame(rows, columns=["gene", "doublet_group", "role"]), Path("markers.tsv"))


def draw(n: int = 240, n_doublets: int = 16) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Three cell types with markers; the last cells are sums of a B and a T cell."""
    rng = np.random.default_rng(2)
    genes = [g for members in MARKER_GENES.values() for g in members] + [f"G{i:03d}" for i in range(394)]
    profiles = rng.gamma(0.5, 1, size=(3, len(genes)))
    profiles[:, :6] = 0
    for kind in range(3):
        profiles[kind, 2 * kind : 2 * kind + 2] = 20
    profiles /= profiles.sum(axis=1, keepdims=True)
    kinds = rng.integers(0, 3, size=n)
    counts = rng.poisson(profiles[kinds] * 2000)
    halves = [rng.poisson(profiles[np.full(n_doublets, kind)] * 2000) for kind in (0, 1)]
    counts[n - n_doublets :] = halves[0] + halves[1]
    return counts, genes, np.arange(n) >= n - n_doublets


@pytest.fixture
def detect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*options: object) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
        given = ["--sample", "S1", "--input", "S1.h5ad", "--flags", "S1.flags.parquet", "--markers", "markers.tsv"]
        assert detect_doublets.main([*given, *map(str, options)]) == 0
        row = pd.read_csv("S1.doublets.tsv", sep="\t", keep_default_na=False).iloc[0]
        return pd.read_parquet("S1.doublets.parquet"), row, pd.read_csv("detect_doublets.S1.status.tsv", sep="\t").iloc[0]

    return call


def test_planted_heterotypic_doublets(detect):
    counts, genes, truth = draw()
    write_inputs(counts, genes, flagged=5)
    cells, row, _ = detect()
    assert cells.columns.tolist() == [keys.CELL, *keys.DOUBLET_COLUMNS]
    good = slice(5, None)
    assert auroc(cells[keys.DOUBLET_SCORE].to_numpy()[good], truth[good]) >= 0.85  # floor of methods.md
    # flagged cells are neither scored nor called
    assert cells[keys.DOUBLET_SCORE][:5].isna().all()
    assert not cells[[keys.DOUBLET_CALL, keys.DOUBLET]][:5].any(axis=None)
    # the doublets form one fine cluster, which rule c finds
    assert (cells[keys.LINEAGE_PAIR][truth] == "B+T_NK").mean() >= 0.9
    assert cells[keys.CLUSTER_FLAG_LINEAGE][truth].mean() >= 0.9
    assert cells[keys.CLUSTER_FLAG_LINEAGE][~truth].mean() <= 0.02
    assert (
        cells[keys.DOUBLET] == cells[[keys.DOUBLET_CALL, keys.CLUSTER_FLAG_SCORE, keys.CLUSTER_FLAG_LINEAGE]].any(axis=1)
    ).all()
    assert row["n_cells"] == 235
    assert float(row["max_score"]) == pytest.approx(cells[keys.DOUBLET_SCORE].max(), rel=1e-5)
    assert "a cluster mean above 0.6 is hardly ever reached" in row["note"]
    histogram = pd.read_csv("S1.doublet_hist.tsv", sep="\t")
    assert (histogram["n_observed"].sum(), histogram["n_simulated"].sum()) == (235, 4000)  # small sample


def test_rules_not_in_use_keep_their_columns(detect):
    counts, genes, _ = draw()
    write_inputs(counts, genes)
    cells, row, _ = detect("--remove", "none")
    assert not cells[keys.DOUBLET].any()
    assert cells[keys.CLUSTER_FLAG_LINEAGE].any()
    assert row["n_doublets"] == 0


def test_seed_repeats_threads_do_not_matter_and_seeds_differ(tmp_path, run_script, detect):
    counts, genes, _ = draw(120, 8)
    write_inputs(counts, genes)
    given = ["--sample", "S1", "--input", "S1.h5ad", "--flags", "S1.flags.parquet", "--markers", "markers.tsv"]
    outputs = []
    for options in (("--threads", 1), ("--threads", 2), ("--seed", 2)):
        run_script("detect_doublets", *given, *options, cwd=tmp_path)
        outputs.append((Path("S1.doublets.parquet").read_bytes(), Path("S1.doublets.tsv").read_bytes()))
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize("n", [0, 1, 2, 49])
def test_few_cells_are_skipped_and_nobody_is_called(n, detect):
    counts, genes, _ = draw(60, 0)
    write_inputs(counts[:n], genes)
    cells, row, state = detect()
    assert (len(cells), state["status"], row["called"], row["threshold"]) == (n, "skipped_too_few_cells", 0, "")
    assert state["reason"] == f"{n} cells are not flagged, needed 50 (--min_cells_doublets)"
    assert not cells[keys.DOUBLET].any()
    assert len(pd.read_csv("S1.doublet_hist.tsv", sep="\t")) == 50


def test_few_genes_are_skipped(detect):
    counts, genes, _ = draw(60, 0)
    write_inputs(counts[:, :8], genes[:8])
    assert detect()[2]["status"] == "skipped_few_genes"


def test_marker_table_without_groups_is_refused(detect):
    counts, genes, _ = draw(60, 0)
    write_inputs(counts, genes)
    io.write_tsv(pd.DataFrame({"gene": ["A"]}), Path("markers.tsv"))
    with pytest.raises(InputError, match=r"markers\.tsv lacks the columns doublet_group, role; it has gene"):
        detect()


@pytest.mark.parametrize(("option", "value"), [("--remove", "call+magic"), ("--expected_doublet_rate", "0")])
def test_bad_options_are_usage_errors(option, value, detect, capsys):
    with pytest.raises(SystemExit, match="2"):
        detect(option, value)
    assert option in capsys.readouterr().err


@pytest.mark.real
@pytest.mark.parametrize(("name", "n_doublets", "floor"), [("sc_celseq2", 34, 0.70), ("sc_dropseq", 15, 0.90)])
def test_demuxlet_doublets_of_sc_mixology(name, n_doublets, floor, root, shared_data, detect):
    folder = shared_data / "sc_mixology" / "csv"
    given = ["--sample", "S1", "--patient", "P", "--phase", "PRE", "--input", str(folder / f"{name}.count.csv.gz")]
    load_sample.main([*given, "--positions", str(root / "assets" / "gene_positions.tsv.gz")])
    names = anndata.read_h5ad("S1.h5ad", backed="r").obs_names
    io.write_fragment(pd.DataFrame({keys.CELL: names, keys.FLAG_ANY: False}), Path("S1.flags.parquet"))
    Path("markers.tsv").write_text((root / "assets" / "markers.tsv").read_text())
    cells, _, _ = detect()
    truth = pd.read_csv(folder / f"{name}.metadata.csv.gz")["demuxlet_cls"].eq("DBL")
    truth = truth.reindex(cells[keys.CELL].str.split(":").str[1]).to_numpy(dtype=bool)
    assert truth.sum() == n_doublets
    found = auroc(cells[keys.DOUBLET_SCORE].to_numpy(), truth)
    print(f"AUROC {name}: {found:.3f}")
    assert found >= floor
