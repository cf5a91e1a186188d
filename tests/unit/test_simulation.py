"""Kernels of SIMULATE_COHORT against what they promise: sums, moments, truth flags, independence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import simulation
from scresist.io import read_tsv


@pytest.fixture(scope="module")
def tables(root):
    positions = read_tsv(root / "assets" / "gene_positions.tsv.gz", dtype={"symbol": str, "gene_id": str, "chromosome": str})
    positions["gene_id"] = positions["gene_id"].fillna("")
    return positions, read_tsv(root / "assets" / "markers.tsv", dtype=str).fillna("")


@pytest.fixture(scope="module")
def model(tables):
    genes = simulation.choose_genes(*tables, 3000, 1600)
    return simulation.build_model(genes, simulation.state_table(tables[1]), tables[1], np.random.default_rng(0))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_genes_hold_markers_panel_and_fill_the_genome(tables):
    positions, markers = tables
    genes = simulation.choose_genes(positions, markers, 6500, 1600)
    assert len(genes) == 6500
    assert genes["symbol"].is_unique
    assert set(markers["gene"]) | set(simulation.PANEL) <= set(genes["symbol"])
    assert (genes["role"] == "mitochondrial").sum() == 13
    assert 70 <= (genes["role"] == "ribosomal").sum() <= 110  # 80 cytosolic ribosomal proteins and their paralogues
    assert not genes["symbol"].str.match(r"RPL\d+P\d").any()
    # a window of 101 genes for copy numbers: every autosome holds at least one
    per_chromosome = genes["chromosome"].value_counts()
    assert all(per_chromosome[str(number)] >= 50 for number in range(1, 23))
    background = genes[genes["role"] == "background"]
    assert background["start"].notna().all()


@pytest.mark.parametrize("n_genes", [10, 10**6])
def test_too_few_or_too_many_genes_are_refused(tables, n_genes):
    with pytest.raises(ValueError, match=f"n_genes is {n_genes}: choose"):
        simulation.choose_genes(*tables, n_genes, 1600)


def test_a_marker_table_without_a_planted_type_is_refused(tables):
    markers = tables[1]
    with pytest.raises(ValueError, match="lacks Mast, cDC1"):
        simulation.state_table(markers[(markers["main_type"] != "Mast") & (markers["subtype"] != "cDC1")])


def test_demo_design_is_the_study_and_batches_are_not_aliased_with_phases():
    design = simulation.DEMO_DESIGN
    assert design["phase"].value_counts().to_dict() == {"PRE": 4, "POST": 4, "PRE-R": 2, "RES": 1}
    assert design["patient"].nunique() == 9
    assert set(design.loc[design["patient"] == "P1", "sample"]) == {"PRE-1", "RES-1", "POST-1"}
    assert (design.groupby("batch")["phase"].nunique() >= 2).all()
    # batch + phase indicators: rank is full when no phase follows from the batches
    columns = pd.concat([pd.get_dummies(design["batch"]), pd.get_dummies(design["phase"]).iloc[:, 1:]], axis=1).to_numpy(float)
    assert np.linalg.matrix_rank(columns) == columns.shape[1]


def test_states_are_distributions_with_markers_where_they_belong(model):
    np.testing.assert_allclose(np.exp(model.log_mean).sum(axis=1), 1.0, rtol=1e-9)
    assert model.states["main_type"].nunique() == 11
    at = {symbol: index for index, symbol in enumerate(model.genes["symbol"])}
    cp10k = np.exp(model.log_mean) * 1e4
    is_b = (model.states["main_type"] == "B").to_numpy()
    assert cp10k[is_b, at["CD79A"]].min() > 1
    assert cp10k[~is_b, at["CD79A"]].max() < 0.2
    cd4, cd8 = ((model.states["main_type"] == name).to_numpy() for name in ("CD4_T", "CD8_T"))
    assert cp10k[cd4, at["CD8A"]].max() < 0.2 < cp10k[cd8, at["CD8A"]].min()
    planted = model.programs.groupby("subtype")["gene"].nunique()
    assert planted.min() > simulation.TYPE_GENES


def test_rates_sum_to_the_library():
    rates = simulation.to_rates(np.log(np.array([[1.0, 3.0], [2.0, 2.0]])), np.array([100.0, 10.0]))
    np.testing.assert_allclose(rates, [[25, 75], [5, 5]])


def test_noise_keeps_the_mean_and_has_the_stated_variance():
    dispersion = np.array([0.2, 0.5, 0.4])
    noisy = simulation.plant_noise(np.full((40000, 3), 10.0, np.float32), dispersion, np.array([False, False, False]), rng())
    np.testing.assert_allclose(noisy.mean(axis=0), 10, rtol=0.02)
    np.testing.assert_allclose(noisy.var(axis=0) / 100, dispersion, rtol=0.05)


def test_tumour_effect_touches_malignant_cells_and_no_marker(model):
    reserved = np.zeros(len(model.genes), dtype=bool)
    reserved[np.flatnonzero(model.genes["role"] == "background")[::2]] = True
    effect = simulation.tumour_effect(model.genes, reserved, rng())
    assert (effect != 0).sum() == simulation.TUMOUR_GENES
    assert not effect[reserved].any()
    assert not effect[(model.genes["role"] != "background").to_numpy()].any()
    cells = pd.DataFrame({"is_malignant": [True, False]})
    moved = simulation.plant_tumour(np.zeros((2, len(effect)), np.float32), cells, effect)
    np.testing.assert_allclose(moved[0], effect, rtol=1e-6)
    assert not moved[1].any()


def test_doublets_are_sums_of_two_cells_named_by_their_groups(model):
    states = model.states
    row = {name: int(states.index[states["subtype"] == name][0]) for name in ("Treg", "Effector_CD8", "Secretory", "Plasma")}
    # two singlets, then the first cells of two doublets, then their second cells
    state = [row["Plasma"], row["Plasma"], row["Treg"], row["Treg"], row["Effector_CD8"], row["Secretory"]]
    cells = pd.DataFrame({"state": state, "is_malignant": [False] * 5 + [True], "library": [10.0] * 6})
    rates = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    out, table = simulation.plant_doublets(rates, cells, states, 2, rng())
    assert out.shape == (4, 2)
    np.testing.assert_array_equal(out[:2], rates[:2])
    assert list(table["doublet_kind"]) == ["", "", "homotypic", "heterotypic"]
    low, high = simulation.DOUBLET_CAPTURE
    for k in (0, 1):
        ratio = out[2 + k] / (rates[2 + k] + rates[4 + k])
        assert np.ptp(ratio) < 1e-6
        assert low <= ratio[0] <= high
    # the cell with more counts names the droplet
    assert list(table["state"][2:]) == [row["Effector_CD8"], row["Secretory"]]
    assert list(table["state_2"]) == [-1, -1, row["Treg"], row["Treg"]]
    assert list(table["is_malignant"]) == [False, False, False, True]


def test_ambient_keeps_totals_and_moves_cells_towards_the_soup():
    rates = np.array([[100.0, 0.0], [0.0, 100.0]], np.float32)
    out, cells = simulation.plant_ambient(rates, pd.DataFrame(index=range(2)), 0.1, rng())
    np.testing.assert_allclose(out.sum(axis=1), 100, rtol=1e-5)
    # the soup is half and half: a share a moves a/2 of the counts
    np.testing.assert_allclose(out[0, 1], cells["pct_ambient"][0] / 2, rtol=1e-5)


def test_poor_cells_break_the_rules_of_flag_cells_and_doublets_stay_whole():
    cells = pd.DataFrame({"is_doublet": [False] * 40 + [True] * 10})
    is_mt = np.array([True, False, False])
    rates = np.tile(np.array([100.0, 1000.0, 900.0], np.float32), (50, 1))
    out, table = simulation.plant_poor(rates, cells, is_mt, 0.5, rng())
    assert table["poor_kind"].value_counts().to_dict() == {"": 30, "low_counts": 10, "high_mt": 10}
    assert not table.loc[40:, "is_poor"].any()
    assert out[table["poor_kind"] == "low_counts"].sum(axis=1).max() < 500
    leaky = out[table["poor_kind"] == "high_mt"]
    assert (leaky[:, 0] / leaky.sum(axis=1)).min() > 0.2
    np.testing.assert_array_equal(out[~table["is_poor"]], rates[~table["is_poor"]])


def test_immune_share_rises_at_response_and_falls_at_resistance(model):
    lineage = model.states.drop_duplicates("main_type").set_index("main_type")["lineage"]
    immune = list(lineage.index[lineage == "immune"])

    def share(phase: str) -> float:
        return float(np.mean([simulation.proportions(phase, np.random.default_rng(i))[immune].sum() for i in range(50)]))

    assert share("RES") > share("PRE") + 0.05 and share("POST") < share("PRE") - 0.05


def test_shares_vary_around_what_the_truth_tells():
    table = simulation.share_table(["POST", "PRE", "RES"]).set_index(["main_type", "contrast"])
    rng = np.random.default_rng
    drawn = {p: np.mean([simulation.proportions(p, rng(i)) for i in range(300)], axis=0) for p in ("POST", "PRE")}
    told = table.xs("POST_vs_PRE", level="contrast")
    assert list(told.index) == list(simulation.TYPES)
    np.testing.assert_allclose(told["share_a"], drawn["POST"], atol=0.004)
    np.testing.assert_allclose(told["share_b"], drawn["PRE"], atol=0.004)
    np.testing.assert_allclose(told["log_ratio"], np.log(told["share_a"] / told["share_b"]), atol=1e-12)
    # gains and losses are in balance: what is not named stays within 2 % of its share
    named = list(simulation.PHASE_SHIFTS["POST"])
    assert told.loc[named, "log_ratio"].abs().min() > 0.5 and told.drop(named)["log_ratio"].abs().max() < 0.02


def test_a_type_that_a_phase_lacks_is_not_drawn():
    drawn = {phase: simulation.proportions(phase, np.random.default_rng(0)) for phase in ("PRE", "RES")}
    assert drawn["RES"]["Mast"] == 0 < drawn["PRE"]["Mast"] and drawn["RES"].sum() == pytest.approx(1)
    row = simulation.share_table(["PRE", "RES"]).set_index(["main_type", "contrast"]).loc[("Mast", "RES_vs_PRE")]
    assert row["share_a"] == 0 and np.isnan(row["log_ratio"])


def test_a_further_step_adds_columns_that_doublets_take_from_their_larger_cell(model):
    def mark(log_mean: np.ndarray, cells: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
        return log_mean, cells.assign(tag=[f"state {state}" for state in cells["state"]])

    zero = np.zeros(len(model.genes))
    counts, cells, _, _ = simulation.simulate_sample(model, "PRE", 300, 1.0, zero, zero, rng(), further=mark)
    plain, before, _, _ = simulation.simulate_sample(model, "PRE", 300, 1.0, zero, zero, rng())
    np.testing.assert_array_equal(counts, plain)
    pd.testing.assert_frame_equal(cells.drop(columns="tag"), before)
    state = {f"state {index}": name for index, name in enumerate(model.states["subtype"])}
    assert list(cells["tag"].map(state)) == list(cells["subtype"])


def test_no_malignant_cells_without_a_tumour(model):
    zero = np.zeros(len(model.genes))
    _, cells, _, _ = simulation.simulate_sample(model, "PRE", 200, 1.0, zero, zero, rng(), malignant_share=0.0)
    assert (cells["lineage"] == "epithelial").sum() > 20
    assert not cells["is_malignant"].any()
