"""FLAG_CELLS through its command line, and the figures of GSE128531 and pbmc3k."""

from __future__ import annotations

from pathlib import Path

import anndata
import flag_cells
import load_sample
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import keys
from scresist.io import InputError

GENES = [f"G{i:03d}" for i in range(300)] + ["MT-ND1"]


def write_sample(n_cells: int, mt: bool = True, poor: int = 0) -> Path:
    counts = np.random.default_rng(5).poisson(4, size=(n_cells, len(GENES)))
    counts[:poor, 5:] = 0
    genes = GENES if mt else GENES[:-1] + ["ZZZ"]
    obs = pd.DataFrame(dict.fromkeys(keys.IDENTITY, "S1"), index=[f"S1:c{i:04d}" for i in range(n_cells)])
    adata = anndata.AnnData(
        obs=obs,
        var=pd.DataFrame({keys.IS_MT: [g.startswith("MT-") for g in genes]}, index=genes),
        layers={keys.COUNTS: sparse.csr_matrix(counts.astype(np.int32))},
        uns={keys.UNS: {}},
    )
    adata.write_h5ad("S1.h5ad")
    return Path("S1.h5ad")


@pytest.fixture
def flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*options: object) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
        assert flag_cells.main(["--sample", "S1", "--input", "S1.h5ad", *map(str, options)]) == 0
        qc = pd.read_csv("S1.sample_qc.tsv", sep="\t", keep_default_na=False).iloc[0]
        return pd.read_parquet("S1.flags.parquet"), qc, pd.read_csv("flag_cells.S1.status.tsv", sep="\t").iloc[0]

    return call


def test_columns_and_flags(flag):
    write_sample(100, poor=3)
    cells, qc, state = flag("--sample_min_median_genes", 200, "--saturation_pct", 75, "--reads_in_cells_pct", 69)
    assert list(cells.columns) == [keys.CELL, *keys.QC_METRICS, *keys.QC_FLAGS]
    assert cells[keys.FLAG_LOW_GENES].sum() == 3
    assert (qc["n_before"], qc["crit_genes"], qc["crit_saturation"], qc["crit_reads"], qc["verdict"]) == (
        100,
        "pass",
        "pass",
        "fail",
        "fail",
    )
    assert qc["n_after"] == (~cells[keys.FLAG_ANY]).sum() <= 97
    assert state["status"] == "warning"
    assert "reads in cells 69 %, needed 70 %" in state["reason"]


def test_criteria_not_given(flag):
    write_sample(100)
    _, qc, _ = flag("--sample_min_median_genes", 200)
    assert (qc["crit_saturation"], qc["crit_reads"], qc["saturation"], qc["verdict"]) == ("not_given", "not_given", "", "pass")


@pytest.mark.parametrize("n", [1, 2, 29])
def test_few_cells_switch_the_adaptive_rule_off(n, flag):
    write_sample(n)
    cells, qc, state = flag("--sample_min_median_genes", 200)
    assert len(cells) == n
    assert qc["mad_bounds"] == ""
    assert f"{n} cells, fewer than 30: adaptive (MAD) rule off" in state["reason"]


def test_no_cells_and_all_flagged_are_shouted(flag):
    write_sample(0)
    cells, qc, state = flag()
    assert (len(cells), state["status"], state["reason"], qc["verdict"]) == (
        0,
        "failed_no_cells",
        "the sample holds no cell",
        "fail",
    )
    write_sample(40)
    cells, qc, state = flag("--min_genes", 5000)
    assert (state["status"], state["reason"], qc["median_genes"]) == ("failed_no_cells", "all 40 cells are flagged as poor", "")
    assert cells[keys.FLAG_ANY].all()


def test_without_mitochondrial_genes_the_rules_are_off(flag):
    write_sample(50, mt=False)
    cells, qc, state = flag("--max_mt_pct", 0)
    assert cells[keys.PCT_MT].isna().all()
    assert not cells[[keys.FLAG_HIGH_MT, keys.FLAG_MAD_MT]].any(axis=None)
    assert qc["median_mt"] == ""
    assert "mitochondrial rules are off" in state["reason"]


def test_a_foreign_h5ad_is_refused(flag):
    anndata.AnnData(np.ones((2, 2), dtype=np.float32)).write_h5ad("S1.h5ad")
    with pytest.raises(InputError, match=r"S1.h5ad breaks the AnnData contract"):
        flag()


@pytest.fixture
def real(tmp_path, root, shared_data, monkeypatch, flag):
    def call(path: str, *options: object) -> tuple[pd.DataFrame, pd.Series]:
        given = ["--sample", "S1", "--patient", "P1", "--phase", "PRE", "--input", str(shared_data / path)]
        load_sample.main([*given, "--positions", str(root / "assets" / "gene_positions.tsv.gz")])
        return flag(*options)[:2]

    return call


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "n_kept", "median_genes", "verdict"),
    [
        ("CTCL-5", 280, 1014, "pass"),
        ("CTCL-6", 274, 1608, "pass"),
        ("CTCL-8", 276, 762.5, "fail"),  # 763 when rounded
        ("HC-1", 268, 885.5, "fail"),  # 886 when rounded
        ("HC-2", 272, 1151.5, "pass"),  # 1,152 when rounded
        ("HC-3", 260, 1233, "pass"),
    ],
)
def test_ctcl_with_the_two_fixed_rules_alone(name, n_kept, median_genes, verdict, real):
    _, qc = real(f"ctcl_gse128531/10x/{name}", "--min_counts", 0, "--mad_k", 1000, "--mad_k_mt", 1000)
    assert (qc["n_after"], float(qc["median_genes"]), qc["verdict"]) == (n_kept, median_genes, verdict)


@pytest.mark.real
def test_pbmc3k_cells_of_the_tutorial(real):
    cells, _ = real("pbmc3k_raw/10x")
    assert ((cells[keys.N_GENES] >= 200) & (cells[keys.N_GENES] < 2500) & (cells[keys.PCT_MT] < 5)).sum() == 2638
