"""Positive against negative cells at equal depth: rules, matching, shares, scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scresist import expression, keys, normalise, stratum


@pytest.mark.parametrize(
    ("text", "rule"),
    [("count>0", ("count", 0)), ("count>3", ("count", 3)), ("quantile:.75", ("quantile", 0.75)), ("quantile:1", ("quantile", 1))],
)
def test_rules(text, rule):
    assert stratum.parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "count>=0", "count>-1", "quantile:1.5", "quantile:75", "x>0", "count>0\n"])
def test_other_texts_are_no_rules(text):
    with pytest.raises(ValueError, match="is not a rule"):
        stratum.parse_rule(text)


def test_positive_cells():
    counts, x = np.array([0, 1, 2, 5]), np.array([0.0, 1.0, 3.0, 2.0])
    assert stratum.positive_cells(counts, x, "count>0").tolist() == [False, True, True, True]
    assert stratum.positive_cells(counts, x, "count>1").tolist() == [False, False, True, True]
    assert stratum.positive_cells(counts, x, "quantile:0.5").tolist() == [False, False, True, True]
    # where the quantile is 0, cells without the marker stay negative
    assert stratum.positive_cells(counts, np.array([0.0, 0, 0, 2]), "quantile:0.5").tolist() == [False, False, False, True]


def test_deciles_within_samples():
    total = np.concatenate([np.arange(20), 1000 + np.arange(10)])
    sample = np.array(["A"] * 20 + ["B"] * 10)
    assert stratum.depth_bins(total, sample).tolist() == [i // 2 for i in range(20)] + list(range(10))
    assert set(stratum.depth_bins(np.ones(5), np.repeat("A", 5))) == {5}  # equal totals share a decile


def test_matching_within_sample_and_bin():
    rng = np.random.default_rng(0)
    positive, bins = rng.random(400) < 0.3, rng.integers(0, 10, 400)
    sample = np.repeat(["A", "B"], 200)
    chosen = stratum.match_cells(positive, sample, bins, 7)
    assert len(set(chosen)) == len(chosen) and (np.diff(chosen) > 0).all()
    frame = pd.DataFrame({"sample": sample, "bin": bins, "positive": positive})
    picked = frame.iloc[chosen].groupby(["sample", "bin"])["positive"].agg(["sum", "size"])
    assert (picked["size"] == 2 * picked["sum"]).all()
    have = frame.groupby(["sample", "bin"])["positive"].agg(["sum", "size"])
    assert picked["sum"].equals(np.minimum(have["sum"], have["size"] - have["sum"]).loc[picked.index].rename("sum"))
    alone = stratum.match_cells(positive[:200], sample[:200], bins[:200], 7)
    assert alone.tolist() == chosen[chosen < 200].tolist()  # another sample does not move the draw
    assert stratum.match_cells(positive, sample, bins, 8).tolist() != chosen.tolist()
    assert stratum.match_cells(np.ones(4, dtype=bool), np.repeat("A", 4), np.zeros(4, dtype=int), 1).size == 0


def one_population(seed: int, n: int = 2100, n_genes: int = 900) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Cells of one state: a library of 15,000 counts, each cell thinned to 4 to 100 % of it."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.4, 1.0, n_genes)
    rate /= rate.sum()
    full = rng.poisson(15_000 * rate * rng.gamma(1 / 0.3, 0.3, (n, n_genes)))
    marker = int(np.argmin(np.abs(rate * 4200 - 0.7)))
    thinned = rng.binomial(full, np.exp(rng.uniform(np.log(0.04), 0, (n, 1))))
    positive = thinned[:, marker] > 0
    return sparse.csr_matrix(np.delete(thinned, marker, axis=1).astype(np.int32)), positive


def test_thinned_cells_of_one_population_differ_only_without_matching():
    """Nothing differs but depth: matched, p < 0.05 as often as chance gives; unmatched, genes are called by the hundred."""
    shares = []
    for seed in (0, 1):
        counts, positive = one_population(seed)
        x = normalise.log1p_cp10k(counts)
        sample = np.repeat(["A", "B", "C"], 700)
        bins = stratum.depth_bins(np.asarray(counts.sum(axis=1)).ravel(), sample)
        matched = stratum.match_cells(positive, sample, bins, 1)
        genes = pd.Index([f"g{i}" for i in range(counts.shape[1])])
        equal = expression.compare_cells(x[matched], genes, positive[matched], sample[matched], True, 0.1)
        unequal = expression.compare_cells(x, genes, positive, sample, True, 0.1)
        shares.append((np.mean(equal["p_value"] < 0.05), np.mean(unequal["p_value"] < 0.05)))
        assert (equal["p_adjusted"] < 0.05).sum() <= 2 and (unequal["p_adjusted"] < 0.05).sum() > 20
    assert max(equal for equal, _ in shares) <= 0.05 and min(unequal for _, unequal in shares) > 0.5


def obs_of(samples: list[str], patients: list[str], phases: list[str], n: int) -> pd.DataFrame:
    return pd.DataFrame({"sample": np.repeat(samples, n), "patient": np.repeat(patients, n), "phase": np.repeat(phases, n)})


def test_shares_per_sample():
    obs = obs_of(["A", "B"], ["P", "Q"], ["PRE", "POST"], 4)
    positive = np.array([1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)
    table = stratum.shares("M", obs, positive, np.array([0, 2, 4, 5]), ["PRE"]).set_index("sample")
    assert table["share"].tolist() == [0.5, 0.25] and table["n_matched"].tolist() == [1, 1]
    assert table["used"].tolist() == [True, False] and list(table) == [c for c in stratum.SHARE_COLUMNS if c != "sample"]
    assert (table["ci_low"] < table["share"]).all() and (table["share"] < table["ci_high"]).all()


def test_groups_compare_phases_by_patient():
    """Three patients a phase; shares 0.1, 0.2, 0.3 against 0.7, 0.8, 0.9: H of completely separated 3 and 3 is 27/7."""
    obs = obs_of([f"S{i}" for i in range(6)], [f"P{i}" for i in range(6)], ["PRE"] * 3 + ["POST"] * 3, 10)
    wanted = [1, 2, 3, 7, 8, 9]
    positive = np.concatenate([np.arange(10) < k for k in wanted])
    clone = np.where(np.arange(60) < 30, "P0.C1", "").astype(object)
    table = stratum.groups("M", obs, {"clone": clone}, positive, positive.astype(float))
    phases = table[table["grouping"] == "phase"].set_index("group")
    assert phases["statistic"].tolist() == pytest.approx([27 / 7] * 2) and phases["share"].tolist() == pytest.approx([0.8, 0.2])
    assert phases["effect"].iloc[0] == pytest.approx(27 / 7 / 5) and set(phases["status"]) == {keys.OK}
    clones = table[table["grouping"] == "clone"]
    assert clones["group"].tolist() == ["P0.C1"] and clones["n_cells"].tolist() == [30] and clones["p_value"].isna().all()
    one = stratum.groups("M", obs.iloc[:40], {}, positive[:40], positive[:40].astype(float))
    assert set(one["status"]) == {keys.NO_REPLICATES} and one["p_value"].isna().all()


def test_score_differences_within_samples_and_across_patients():
    rng = np.random.default_rng(2)
    sample = np.repeat(["A1", "A2", "B1", "C1"], 40)
    positive = np.tile(np.arange(40) < 20, 4)
    score = rng.normal(0, 1, 160) + 2 * positive
    score[120:140] = np.nan  # C1 has no positive cell with a score
    patient_of = {"A1": "A", "A2": "A", "B1": "B", "C1": "C"}
    frame = pd.DataFrame({"module_M1": score, "module_M2": rng.normal(0, 1, 160)})
    table = stratum.score_differences("M", frame, positive, sample, patient_of, 10)
    first = table[table["score"] == "module_M1"].set_index("sample")
    from scipy.stats import mannwhitneyu

    a = score[:40]
    expected = mannwhitneyu(a[:20], a[20:], method="exact")
    assert first.loc["A1", "p_value"] == pytest.approx(expected.pvalue)
    assert first.loc["A1", "r"] == pytest.approx(2 * expected.statistic / 400 - 1)
    assert first.loc["C1", "status"] == keys.SKIPPED_TOO_FEW_CELLS and np.isnan(first.loc["C1", "p_value"])
    whole = first.loc["all"]
    within = [first.loc[s, "mean_pos"] - first.loc[s, "mean_neg"] for s in ("A1", "A2", "B1")]
    assert whole["effect"] == pytest.approx((np.mean(within[:2]) + within[2]) / 2)
    assert whole["n_patients_a"] == 2 and whole["evidence"] == keys.LIMITED and whole["p_min_attainable"] == 0.5
    assert whole["p_value"] == pytest.approx(0.5) and whole["unit"] == "patient"
    alone = stratum.score_differences("M", frame.iloc[:80], positive[:80], sample[:80], patient_of, 10)
    assert set(alone.loc[alone["sample"] == "all", "status"]) == {keys.NO_REPLICATES}
    none = stratum.score_differences("M", frame.iloc[:10], positive[:10], sample[:10], patient_of, 10)
    assert set(none.loc[none["sample"] == "all", "status"]) == {keys.NOT_ESTIMABLE}
    assert stratum.score_differences("M", frame[[]], positive, sample, patient_of, 10).empty
