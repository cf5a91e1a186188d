"""Metrics against scanpy's, the MAD rule and the criteria by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import keys, quality

GENES = pd.Index(["HBA1", "HBEGF", "MT-CO1", "MT-ND1", "RPL3", "RPLP0", "RPS6KA1", "RPSA"] + [f"G{i}" for i in range(60)])


def draw(n_cells: int, seed: int = 3) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.random.default_rng(seed).poisson(0.8, size=(n_cells, len(GENES))).astype(np.int32))


def test_metrics_equal_scanpy():
    scanpy = pytest.importorskip("scanpy")
    counts = draw(40)
    mt = GENES.str.startswith("MT-")
    ribo = GENES.isin(["RPL3", "RPLP0", "RPSA"])
    adata = scanpy.AnnData(counts.astype(float), var=pd.DataFrame({"mt": mt, "ribo": ribo, "hb": GENES == "HBA1"}, index=GENES))
    scanpy.pp.calculate_qc_metrics(adata, qc_vars=["mt", "ribo", "hb"], percent_top=[20], log1p=False, inplace=True)
    ours = quality.metrics(counts, GENES, mt)
    for column, theirs in {
        keys.N_COUNTS: "total_counts",
        keys.N_GENES: "n_genes_by_counts",
        keys.PCT_MT: "pct_counts_mt",
        keys.PCT_RIBO: "pct_counts_ribo",
        keys.PCT_HB: "pct_counts_hb",
        keys.PCT_TOP20: "pct_counts_in_top_20_genes",
    }.items():
        np.testing.assert_allclose(ours[column], adata.obs[theirs], rtol=1e-6, err_msg=column)


def test_percentages_of_a_cell_without_counts_are_missing():
    counts = sparse.csr_matrix(np.zeros((1, len(GENES)), dtype=np.int32))
    table = quality.metrics(counts, GENES, GENES.str.startswith("MT-"))
    assert table[[keys.PCT_MT, keys.PCT_RIBO, keys.PCT_HB, keys.PCT_TOP20]].isna().all(axis=None)
    assert table[keys.N_GENES].tolist() == [0]


def test_without_mitochondrial_genes_the_percentage_is_missing():
    table = quality.metrics(draw(3), GENES, np.zeros(len(GENES), bool))
    assert table[keys.PCT_MT].isna().all()
    assert not quality.fixed_flags(table, 0, 0, 0)[keys.FLAG_HIGH_MT].any()


def test_mad_bounds_by_hand():
    # median 3; deviations 2 1 0 1 97, median 1; 3 -+ 2 x 1.4826
    assert quality.mad_bounds(np.array([1, 2, 3, 4, 100, np.nan]), 2) == pytest.approx((0.0348, 5.9652))
    assert quality.mad_bounds(np.array([5.0, 5.0, 5.0, 9.0]), 2) is None
    assert quality.mad_bounds(np.array([np.nan]), 2) is None


def table_of(n: int, pct_mt: list[float] | None = None) -> pd.DataFrame:
    spread = np.linspace(900, 1100, n)
    return pd.DataFrame(
        {
            keys.N_COUNTS: (spread * 3).astype(int),
            keys.N_GENES: spread.astype(int),
            keys.PCT_MT: pct_mt if pct_mt is not None else np.linspace(1, 3, n),
            keys.PCT_TOP20: np.linspace(20, 30, n),
        }
    )


def test_adaptive_rule_flags_the_odd_cell_on_either_side():
    table = table_of(31)
    table.loc[0, [keys.N_COUNTS, keys.N_GENES]] = [30, 10]
    table.loc[30, keys.N_COUNTS] = 10**6
    table.loc[15, keys.PCT_TOP20] = 95.0
    flags, bounds, warnings = quality.adaptive_flags(table, 5, 3, 8)
    assert np.flatnonzero(flags[keys.FLAG_MAD_COUNTS]).tolist() == [0, 30]
    assert np.flatnonzero(flags[keys.FLAG_MAD_GENES]).tolist() == [0]
    assert np.flatnonzero(flags[keys.FLAG_MAD_TOP20]).tolist() == [15]
    assert not warnings
    assert set(bounds) == {keys.N_COUNTS, keys.N_GENES, keys.PCT_TOP20, keys.PCT_MT}


def test_mitochondrial_bound_is_above_only_and_never_below_the_floor():
    table = table_of(31, [0.0] + list(np.linspace(1, 1.2, 28)) + [7.9, 8.1])
    flags, bounds, _ = quality.adaptive_flags(table, 5, 3, 8)
    assert np.flatnonzero(flags[keys.FLAG_MAD_MT]).tolist() == [30]
    assert bounds[keys.PCT_MT] == "..8"


def test_adaptive_rule_is_off_below_30_cells_and_for_mad_zero():
    table = table_of(29)
    table.loc[0, keys.N_COUNTS] = 10**8
    flags, bounds, warnings = quality.adaptive_flags(table, 5, 3, 8)
    assert not flags.any(axis=None)
    assert not bounds
    assert "29 cells, fewer than 30" in warnings[0]
    table = table_of(40)
    table[keys.N_COUNTS] = 3000
    table.loc[0, keys.N_COUNTS] = 10**8
    flags, _, warnings = quality.adaptive_flags(table, 5, 3, 8)
    assert not flags[keys.FLAG_MAD_COUNTS].any()
    assert "MAD of n_counts is 0" in warnings[0]


@pytest.mark.parametrize("n", [0, 1, 2, 29])
def test_few_cells(n):
    table = quality.metrics(draw(n), GENES, GENES.str.startswith("MT-"))
    flags, _, warnings = quality.adaptive_flags(table, 5, 3, 8)
    assert len(flags) == len(table) == n
    assert warnings


def test_order_of_cells_changes_nothing():
    counts = draw(50)
    order = np.random.default_rng(0).permutation(50)
    mt = GENES.str.startswith("MT-")
    straight = quality.metrics(counts, GENES, mt).iloc[order].reset_index(drop=True)
    pd.testing.assert_frame_equal(straight, quality.metrics(counts[order], GENES, mt))


def test_criteria_are_strict_where_the_study_is():
    assert quality.criterion(1000, 1000, None, strict=True) == "fail"
    assert quality.criterion(1000.5, 1000, None, strict=True) == "pass"
    assert [quality.criterion(v, 60, 90) for v in (59.9, 60, 90, 90.1)] == ["fail", "pass", "pass", "fail"]
    assert quality.criterion(float("nan"), 60, 90) == "not_given"


def test_first_reason_wins_and_a_skipped_sample_takes_the_rest():
    flags = pd.DataFrame(False, index=range(6), columns=list(keys.QC_FLAGS))
    flags.loc[0, [keys.FLAG_LOW_GENES, keys.FLAG_LOW_COUNTS]] = True
    flags.loc[1, [keys.FLAG_LOW_COUNTS, keys.FLAG_HIGH_MT]] = True
    flags.loc[2, [keys.FLAG_HIGH_MT, keys.FLAG_MAD_MT]] = True
    flags.loc[3, keys.FLAG_MAD_TOP20] = True
    doublet = np.array([True, True, True, True, True, False])
    expected = ["low_genes", "low_counts", "high_mt", "mad", "doublet"]
    assert quality.drop_reasons(flags, doublet, False).tolist() == [*expected, ""]
    assert quality.drop_reasons(flags, doublet, True).tolist() == [*expected, "sample_skipped"]


def test_a_factor_of_zero_switches_the_adaptive_rule_off():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.uniform(1, 100, 60) for name in keys.QC_METRICS})
    flags, bounds, warnings = quality.adaptive_flags(table, 0, 0, 8)
    assert not flags.any(axis=None)
    assert set(bounds.values()) == {"off"}
    assert warnings == []
