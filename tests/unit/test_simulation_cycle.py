"""Planted division: shares by phase, folds of the cell's own list, and the truth table against a count of the cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import simulation_cycle

SYMBOLS = ["A", "MKI67", "PCNA", "TOP2A", "MCM2", "Z"]
LISTS = {"S": ["PCNA", "MCM2", "ABSENT"], "G2M": ["MKI67", "TOP2A"]}


def planted(phase, n=20_000, seed=1):
    genes = simulation_cycle.cycle_genes(SYMBOLS, np.array([False, False, False, True, False, False]), LISTS)
    cells = pd.DataFrame({"is_malignant": [True] * n + [False] * 100})
    base = np.zeros((len(cells), len(SYMBOLS)), dtype=np.float32)
    out, cells = simulation_cycle.plant_cycle(base, cells, phase, genes, np.random.default_rng(seed))
    assert not base.any()
    return out, cells, genes


def test_genes_with_another_effect_are_left_alone():
    _, _, genes = planted("PRE", n=10)
    assert {name: [SYMBOLS[i] for i in at] for name, at in genes.items()} == {"S": ["PCNA", "MCM2"], "G2M": ["MKI67"]}


@pytest.mark.parametrize(("phase", "share"), [("PRE", 0.35), ("RES", 0.05), ("POST", 0.35), ("OTHER", 0.35)])
def test_share_of_dividing_cells(phase, share):
    out, cells, _ = planted(phase)
    state = cells["cycle"].to_numpy()
    assert (state[-100:] == "").all() and not out[-100:].any()
    divides = np.isin(state[:-100], ["S", "G2M"])
    assert divides.mean() == pytest.approx(share, abs=0.012)
    assert (state[:-100][divides] == "S").mean() == pytest.approx(0.5, abs=0.06)
    fold = np.float32(1.6)
    assert (out[state == "S"] == [0, 0, fold, 0, fold, 0]).all()
    assert (out[state == "G2M"] == [0, fold, 0, 0, 0, 0]).all()
    assert not out[state == "rest"].any()


def test_truth_is_the_mean_of_the_cells():
    table = simulation_cycle.cycle_table(SYMBOLS, planted("PRE", n=10)[2], ["POST", "PRE", "RES"])
    assert set(table["contrast"]) == {"PRE_vs_RES", "RES_vs_PRE", "POST_vs_RES", "RES_vs_POST"}  # PRE and POST divide alike
    means = {phase: np.exp(planted(phase, n=200_000)[0][:200_000]).mean(axis=0) for phase in ("PRE", "RES")}
    for row in table[table["contrast"] == "RES_vs_PRE"].itertuples():
        at = SYMBOLS.index(row.gene)
        assert row.log2fc == pytest.approx(np.log2(means["RES"][at] / means["PRE"][at]), abs=0.03)
