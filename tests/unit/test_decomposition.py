"""The change of a score divided between clones: hand-worked, exact in random cases, intervals that cover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import decomposition as d
from scresist import io, keys


def test_by_hand():
    # K = (0.4 + 1.6) / 2 = 1. A: (0.2-0.6)((0+0)/2-1)=0.4 and 0.4*0; B: (0.8-0.4)((1+2)/2-1)=0.2 and 0.6*(2-1)=0.6
    found = d.parts([0.6, 0.4], [0.2, 0.8], [0, 1], [0, 2])
    assert found == pytest.approx({"total": 1.2, "selection": 0.6, "reprogramming": 0.6, "emergence": 0.0, "loss": 0.0})


def test_new_and_lost_clone_by_hand():
    # M0 = 1, M1 = 3, K = 2: the lost clone gives -1 (1 - 2) = 1, the new one 1 (3 - 2) = 1
    found = d.parts([1, 0], [0, 1], [1, np.nan], [np.nan, 3])
    assert found == pytest.approx({"total": 2.0, "selection": 0.0, "reprogramming": 0.0, "emergence": 1.0, "loss": 1.0})


@pytest.mark.parametrize("seed", range(300))
def test_parts_add_up(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    counts = rng.integers(0, 40, size=(2, n)) * (rng.random((2, n)) < 0.7)
    counts[:, 0] += counts.sum(axis=1) == 0  # at least one cell in each biopsy
    scores, clone, later = [], [], []
    scale = 10 ** rng.uniform(-3, 3)
    for side in (0, 1):
        for at in range(n):
            k = int(counts[side, at])
            scores += list(rng.normal(rng.normal() * scale, scale, k))
            clone += [f"P.C{at}"] * k
            later += [bool(side)] * k
    scores, later = np.array(scores), np.array(later)
    found = d.decompose(scores[:, None], clone, later, 20, seed)[0]
    change = scores[later].mean() - scores[~later].mean()
    tolerance = 1e-9 * max(1.0, np.abs(scores).max())
    assert found["total"][0] == pytest.approx(change, abs=tolerance)
    assert sum(found[part][0] for part in d.PARTS) == pytest.approx(change, abs=tolerance)
    shared = set(np.array(clone)[later]) & set(np.array(clone)[~later])
    if not shared:
        assert found["selection"] == (0.0, 0.0, 0.0)


def planted(rng, p0, p1, m0, m1, n=150):
    rows = []
    for later, p, m in ((False, p0, m0), (True, p1, m1)):
        clone = rng.choice(len(p), size=n, p=p)
        rows.append((rng.normal(np.array(m)[clone], 1.0), clone, np.repeat(later, n)))
    score, clone, later = (np.concatenate([row[i] for row in rows]) for i in range(3))
    return score, np.array([f"P.C{c}" for c in clone]), later


def test_intervals_cover_the_planted_parts():
    truth = d.parts([0.7, 0.3], [0.4, 0.6], [0.0, 1.5], [0.5, 2.0])
    hits = dict.fromkeys(("total", "selection", "reprogramming"), 0)
    for seed in range(60):
        score, clone, later = planted(np.random.default_rng(seed), [0.7, 0.3], [0.4, 0.6], [0.0, 1.5], [0.5, 2.0])
        found = d.decompose(score[:, None], clone, later, 200, seed)[0]
        for part in hits:
            hits[part] += found[part][1] <= truth[part] <= found[part][2]
    assert min(hits.values()) >= 52, hits  # 95 % of 60 is 57; below 52 has probability 0.3 %


def test_table_says_what_it_could_not_divide():
    rng = np.random.default_rng(1)
    score, clone, later = planted(rng, [0.5, 0.5], [0.3, 0.7], [0, 1], [0, 1])
    scores = pd.DataFrame({"a": score, "absent": np.nan})
    call = {"min_cells": 30, "n_boot": 20, "seed": 1}
    full = d.table("P", "POST_vs_PRE", scores, pd.Series(clone), later, True, **call).set_index("score")
    assert full.loc["a", "residual"] == 0 and np.isnan(full.loc["absent", "residual"])
    assert full.loc["a", "status"] == keys.OK and full.loc["absent", "status"] == keys.NOT_ESTIMABLE
    assert full.loc["a", "mean_a"] - full.loc["a", "mean_b"] == pytest.approx(full.loc["a", "total"], abs=1e-12)
    assert np.isnan(full.loc["absent", "total"])
    quiet = d.table("P", "POST_vs_PRE", scores[["a"]], pd.Series(["P.all"] * 300), later, False, **call).iloc[0]
    assert quiet["status"] == keys.WARNING and np.isnan(quiet["selection"]) and quiet["residual"] == 0
    assert quiet["reprogramming"] == pytest.approx(quiet["total"], abs=1e-12)
    few = d.table("P", "POST_vs_PRE", scores[["a"]], pd.Series(clone), later, True, 151, 20, 1).iloc[0]
    assert few["status"] == keys.NOT_ESTIMABLE and "151 needed" in few["reason"] and np.isnan(few["total"])
    assert list(full.reset_index()[list(d.COLUMNS)].columns) == list(d.COLUMNS)


@pytest.mark.parametrize("seed", range(20))
def test_the_table_tells_what_the_parts_leave_of_the_change(seed):
    rng = np.random.default_rng(seed)
    score, clone, later = planted(rng, [0.5, 0.5, 0.0], [0.3, 0.4, 0.3], [0, 1, 0], [1, 1, 3])
    made = d.table("P", "POST_vs_PRE", pd.DataFrame({"a": score}), pd.Series(clone), later, True, 30, 2, seed).iloc[0]
    assert made["residual"] == 0  # what lies below 1e-12 differs between processors


def test_a_part_that_is_off_shows_in_the_residual_and_in_the_file(monkeypatch, tmp_path):
    rng = np.random.default_rng(2)
    score, clone, later = planted(rng, [0.5, 0.5], [0.3, 0.7], [0, 1], [0, 1])
    whole = d.decompose

    def off(part, by):
        def made(*arguments):
            return [{name: (v + by * (name == part), *limits) for name, (v, *limits) in one.items()} for one in whole(*arguments)]

        return made

    for part, by in (("selection", 3.2e-10), ("reprogramming", -3.2e-10), ("total", 3.2e-10)):
        monkeypatch.setattr(d, "decompose", off(part, by))
        table = d.table("P", "POST_vs_PRE", pd.DataFrame({"a": score}), pd.Series(clone), later, True, 30, 2, 1)
        io.write_tsv(table, tmp_path / "decomposition.tsv")
        found = io.read_tsv(tmp_path / "decomposition.tsv")
        assert list(found.columns) == list(d.COLUMNS)
        assert abs(found.loc[0, "residual"]) == pytest.approx(3.2e-10, abs=2e-12)  # six digits of the parts would show 0
