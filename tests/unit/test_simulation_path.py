"""The planted path of differentiation: where cells lie, what moves along it, and that it is told truly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import simulation, simulation_path
from scresist.io import read_tsv


@pytest.fixture(scope="module")
def model(root):
    positions = read_tsv(root / "assets" / "gene_positions.tsv.gz", dtype={"symbol": str, "gene_id": str, "chromosome": str})
    positions["gene_id"] = positions["gene_id"].fillna("")
    markers = read_tsv(root / "assets" / "markers.tsv", dtype=str).fillna("")
    genes = simulation.choose_genes(positions, markers, 6500, 1600)
    return simulation.build_model(genes, simulation.state_table(markers), markers, np.random.default_rng(0))


@pytest.fixture(scope="module")
def path(model):
    return simulation_path.make_path(model, np.random.default_rng(1))


def planted(model, path, phase, n=600, seed=2):
    state = int(model.states.index[model.states["subtype"] == "Secretory"][0])
    cells = pd.DataFrame({"state": state, "is_malignant": np.arange(n) % 2 == 0, "library": 5000.0})
    base = model.log_mean[cells["state"].to_numpy()].astype(np.float32)
    return base, *simulation_path.plant_path(base, cells, phase, path, np.random.default_rng(seed))


def test_genes_of_the_path_are_background_of_their_own(model, path):
    moved = path[path != 0]
    assert (moved < 0).sum() == simulation_path.N_FADING and (moved > 0).sum() == simulation_path.N_RISING
    assert set(model.genes.set_index("symbol").loc[moved.index, "role"]) == {"background"}
    table = simulation_path.path_table(path)
    assert list(table["gene"]) == sorted(moved.index)
    assert np.exp(table["log2fc"].abs().to_numpy() * np.log(2)) == pytest.approx(np.exp(simulation_path.LN_FOLD))


def test_only_malignant_cells_lie_on_the_path_and_move_by_their_place(model, path):
    base, out, cells = planted(model, path, "PRE")
    on = cells["is_malignant"].to_numpy()
    assert cells.loc[~on, "path_time"].isna().all() and cells.loc[on, "path_time"].between(0, 1).all()
    assert np.array_equal(out[~on], base[~on])
    gene = int(np.flatnonzero(path.to_numpy() < 0)[0])
    wanted = -simulation_path.LN_FOLD * (cells.loc[on, "path_time"].to_numpy() - 0.5)
    np.testing.assert_allclose((out - base)[on, gene], wanted, atol=1e-5)
    assert np.array_equal(out[:, path.to_numpy() == 0], base[:, path.to_numpy() == 0])


def test_baseline_lies_early_and_acquired_resistance_late(model, path):
    mean = {phase: planted(model, path, phase)[2]["path_time"].mean() for phase in ("PRE", "RES", "POST")}
    # means of the Beta distributions: 1/3, 1/2, 2/3
    assert mean["PRE"] == pytest.approx(1 / 3, abs=0.04)
    assert mean["RES"] == pytest.approx(1 / 2, abs=0.04)
    assert mean["POST"] == pytest.approx(2 / 3, abs=0.04)


def test_early_cells_hold_more_rna_and_express_more_genes(model, path):
    _, out, cells = planted(model, path, "RES")
    on = cells["is_malignant"].to_numpy()
    place, library = cells.loc[on, "path_time"], cells.loc[on, "library"]
    np.testing.assert_allclose(library, 5000 * np.exp(simulation_path.LN_LIBRARY * (place - 0.5)))
    assert (cells.loc[~on, "library"] == 5000).all()
    rng = np.random.default_rng(3)
    same = rng.poisson(simulation.to_rates(out[on], np.full(on.sum(), 5000.0)))  # at equal depth
    own = rng.poisson(simulation.to_rates(out[on], library.to_numpy()))
    assert stats.spearmanr(place, (same > 0).sum(axis=1)).statistic < -0.5
    assert stats.spearmanr(place, (own > 0).sum(axis=1)).statistic < -0.8


def test_few_genes_give_a_shorter_path(root, model):
    few = simulation.Model(model.genes.iloc[:900], model.states, model.log_mean[:, :900], model.dispersion[:900], model.programs)
    path = simulation_path.make_path(few, np.random.default_rng(0))
    assert 0 < (path != 0).sum() < simulation_path.N_FADING + simulation_path.N_RISING
