"""Shares, contrasts and tests of composition against scipy, scikit-posthocs, scanpro, limma's formulas and worked cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from scresist import comparison, composition, keys

PHASES = pd.DataFrame({"phase": ["PRE", "RES", "POST"], "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED]})


def sheet(rows):
    return pd.DataFrame(rows, columns=["sample", "patient", "phase"])


def contrast(a, b, paired=False, status=keys.OK, reason=""):
    return comparison.Contrast("POST_vs_PRE", tuple(a), tuple(b), paired, status, reason, "acquired_resistance", "POST", "PRE")


def cohort(n=5, seed=0, paired=False):
    """n patients a side (the same ones when paired), four types, the second one rarer on side A."""
    rng = np.random.default_rng(seed)
    rows, counts = [], []
    for phase, shares in (("PRE", [0.4, 0.3, 0.2, 0.1]), ("POST", [0.52, 0.12, 0.24, 0.12])):
        for i in range(n):
            rows.append((f"{phase}{i}", f"P{i}" if paired or phase == "PRE" else f"Q{i}", phase))
            counts.append(rng.multinomial(rng.integers(150, 400), rng.dirichlet(np.array(shares) * 40)))
    samples = sheet(rows)
    table = pd.DataFrame(counts, index=samples["sample"], columns=list("ABCD"))
    parts = composition.Parts("main_type", "all", table, {})
    one = contrast([r[0] for r in rows if r[2] == "POST"], [r[0] for r in rows if r[2] == "PRE"], paired)
    return parts, samples, one


def run(parts, samples, contrasts, phases=("PRE", "RES", "POST"), transforms=("logit",), pseudocount=0.01, min_cells=20):
    rows = composition.test_parts(parts, contrasts, samples, list(phases), min_cells, transforms, pseudocount)
    return composition.adjusted(rows)


def pick(table, **want):
    for name, value in want.items():
        table = table[table[name] == value]
    return table


# --- labels to counts


def test_levels_and_denominators():
    cells = pd.DataFrame(
        [
            ("s1", "P1", "T", "Naive", "immune", "", "P1.C1"),
            ("s1", "P1", "T", "", "immune", "", ""),
            ("s1", "P1", "E", "Gland", "epithelial", "0", "P1.C1"),
            ("s2", "P1", "E", "Gland", "epithelial", "1", "P1.C2"),
            ("s3", "P2", "unresolved", "", "", "", ""),
        ],
        columns=["sample", "patient", "main_type", "subtype", "lineage", "epi_cluster", "clone"],
    )
    made = composition.parts_of(cells, composition.LEVELS, ["all", "lineage"], ["s1", "s2", "s3"])
    found = {(p.level, p.denominator): p for p in made}
    assert list(found) == [
        ("main_type", "all"), ("main_type", "epithelial"), ("main_type", "immune"), ("subtype", "all"), ("subtype", "epithelial"),
        ("subtype", "immune"), ("epi_cluster", "labelled"), ("clone", "labelled"),
    ]  # fmt: skip
    assert found["main_type", "all"].counts.to_dict("index") == {
        "s1": {"E": 1, "T": 2, "unresolved": 0}, "s2": {"E": 1, "T": 0, "unresolved": 0}, "s3": {"E": 0, "T": 0, "unresolved": 1},
    }  # fmt: skip
    assert found["main_type", "all"].types == ["E", "T"]
    assert found["subtype", "immune"].counts.loc["s1"].to_dict() == {"Naive": 1, "T": 1}  # without a subtype: its main type
    assert list(found["clone", "labelled"].counts.index) == ["s1", "s2"]  # clones are counted in the patient's samples
    assert found["subtype", "all"].parents["Gland"] == ("epithelial", "E")


def test_proportions_by_hand():
    parts = composition.Parts("main_type", "all", pd.DataFrame([[8, 2], [0, 0]], index=["a", "b"], columns=["T", "U"]), {})
    made = composition.proportions(parts, sheet([("a", "P1", "PRE"), ("b", "P1", "POST")]), 5).set_index(["sample", "cell_type"])
    assert made.loc[("a", "T"), "share"] == 0.8
    # Wilson for 8 of 10 (Brown, Cai and DasGupta 2001): 0.490 to 0.943
    assert made.loc[("a", "T"), ["wilson_low", "wilson_high"]].tolist() == pytest.approx([0.4902, 0.9433], abs=1e-4)
    assert made.loc[("a", "T"), "clr"] == pytest.approx(np.log(8.5 / np.sqrt(8.5 * 2.5)))
    assert made.loc[("b", "T"), ["share", "clr"]].isna().all()  # no cell: no share, not 0
    assert made.loc["b", "status"].eq(keys.NOT_ESTIMABLE).all()


# --- contrasts


def test_response_contrasts():
    samples = sheet([("a", "P1", "PRE"), ("b", "P2", "PRE"), ("c", "P3", "PRE"), ("d", "P4", "POST")])
    samples["response"] = ["PR", "PD", "CR", "PD"]
    made = composition.response_contrasts(samples, PHASES)
    assert [c.name for c in made] == ["response:PR_vs_CR", "response:PD_vs_CR", "response:PD_vs_PR"]
    assert (made[2].samples_a, made[2].samples_b) == (("b",), ("a",))  # the sample of POST takes no part
    samples["response"] = ["x", "y", "", "z"]
    assert [c.name for c in composition.response_contrasts(samples, PHASES)] == ["response:y_vs_x"]
    assert composition.response_contrasts(samples.drop(columns="response"), PHASES) == []
    samples["response"] = "PR"
    assert composition.response_contrasts(samples, PHASES) == []


def test_sides_average_samples_and_keep_pairs():
    measured = pd.Series([True, True, True, False, True], index=list("abcde"))
    cells = pd.Series([10, 90, 20, 3, 50], index=measured.index)
    patient_of = dict(zip("abcde", ("P1", "P1", "P2", "P2", "P1"), strict=True))
    found = composition.sides_of(contrast("abcx", "de"), measured, cells, patient_of)
    assert found.left_out == ("d",)
    assert found.n_cells == (120, 50)
    assert found.several
    a, b = found.values(pd.Series([0.2, 0.4, 0.9, np.nan, 0.1], index=measured.index))
    assert a.tolist() == pytest.approx([0.3, 0.9])  # P1: the mean of its samples, not of its cells
    assert b.tolist() == [0.1]
    pairs = composition.sides_of(contrast("abc", "de", True), measured, cells, patient_of)
    assert pairs.contrast.samples_a == ("a", "b")  # P2 has no other side left
    assert pairs.n_cells == (100, 50)


# --- tests


def test_rank_and_clr_equal_scipy():
    parts, samples, one = cohort()
    made = run(parts, samples, [one])
    shares = parts.counts.div(parts.counts.sum(axis=1), axis=0)
    log = np.log(parts.counts + 0.5)
    ratio = log.sub(log.mean(axis=1), axis=0)
    a, b = list(one.samples_a), list(one.samples_b)
    p_rank, p_clr = [], []
    for name in "ABCD":
        row = pick(made, cell_type=name, method="rank").iloc[0]
        p_rank.append(stats.mannwhitneyu(shares.loc[a, name], shares.loc[b, name], method="exact").pvalue)
        assert row["p_value"] == pytest.approx(p_rank[-1])
        assert row["effect"] == pytest.approx(shares.loc[a, name].mean() - shares.loc[b, name].mean())
        assert row["mean_a"] == pytest.approx(shares.loc[a, name].mean())
        assert (row["n_cells_a"], row["n_cells_b"]) == (parts.counts.loc[a].sum().sum(), parts.counts.loc[b].sum().sum())
        welch = stats.ttest_ind(ratio.loc[a, name], ratio.loc[b, name], equal_var=False)
        row = pick(made, cell_type=name, method="clr").iloc[0]
        p_clr.append(welch.pvalue)
        assert (row["statistic"], row["p_value"]) == pytest.approx((welch.statistic, welch.pvalue))
        limits = welch.confidence_interval()
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((limits.low, limits.high))
    assert pick(made, method="rank")["p_adjusted"].tolist() == pytest.approx(stats.false_discovery_control(p_rank).tolist())
    assert pick(made, method="clr")["p_adjusted"].tolist() == pytest.approx(stats.false_discovery_control(p_clr).tolist())


def test_paired_equals_scipy():
    parts, samples, one = cohort(6, paired=True)
    made = run(parts, samples, [one])
    shares = parts.counts.div(parts.counts.sum(axis=1), axis=0)
    log = np.log(parts.counts + 0.5)
    ratio = log.sub(log.mean(axis=1), axis=0)
    for name in "ABCD":
        d = shares.loc[list(one.samples_a), name].to_numpy() - shares.loc[list(one.samples_b), name].to_numpy()
        row = pick(made, cell_type=name, method="rank").iloc[0]
        assert row["p_value"] == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)
        assert row["p_min_attainable"] == pytest.approx(2 / 2**6)
        welch = stats.ttest_rel(ratio.loc[list(one.samples_a), name], ratio.loc[list(one.samples_b), name])
        assert pick(made, cell_type=name, method="clr").iloc[0]["p_value"] == pytest.approx(welch.pvalue)


def limma(y, x, c):
    """lmFit, contrasts.fit and eBayes(robust = FALSE) from the formulas of Smyth 2004, written without scanpro."""
    n, k = y.shape
    df = n - x.shape[1]
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    s2 = ((y - x @ beta) ** 2).sum(axis=0) / df
    e = np.log(s2) - digamma(df / 2) + np.log(df / 2)
    spread = e.var(ddof=1) - polygamma(1, df / 2)
    if spread > 0:
        low, high = 1e-6, 1e8
        for _ in range(300):  # polygamma(1, .) falls: halve the interval on a log scale
            middle = np.sqrt(low * high)
            low, high = (middle, high) if polygamma(1, middle) > spread else (low, middle)
        d0 = 2 * low
        prior = np.exp(e.mean() + digamma(d0 / 2) - np.log(d0 / 2))
        s2 = (d0 * prior + df * s2) / (d0 + df)
    else:
        d0, s2 = np.inf, np.full(k, s2.mean())  # limma since 2017: the pooled variance
    t = (c @ beta) / np.sqrt(s2 * (c @ inverse @ c))
    total = min(df + d0, df * k)
    return t, 2 * stats.t.sf(np.abs(t), total)


@pytest.mark.parametrize(("k", "equal", "robust"), [(7, False, False), (7, True, False), (7, False, True), (14, False, False)])
def test_moderated_t_equals_limmas_formulas(k, equal, robust):
    """With fewer than ten types the robust prior is the plain one, as in limma: fewer than one type lies in each tail."""
    rng = np.random.default_rng(k)
    n = 9
    x = np.column_stack([np.arange(n) < 4, np.arange(n) >= 4]).astype(float)
    y = rng.normal(0, 1, (n, k)) * (1 if equal else np.sqrt(rng.gamma(2, 0.5, k))) + rng.normal(0, 1, k)
    if equal:  # residual variances that are alike: an infinite prior
        y = x @ rng.normal(0, 1, (2, k)) + np.outer(rng.normal(0, 1, n), rng.choice([-1.0, 1.0], k))
    c = np.array([1.0, -1.0])
    t, p = limma(y, x, c)
    found = composition.moderated(y, x, c, robust=robust)
    assert found["t"].to_numpy() == pytest.approx(t, rel=1e-6)
    assert found["p_value"].to_numpy() == pytest.approx(p, rel=1e-5)
    assert (found["effect"] / found["se"]).to_numpy() == pytest.approx(t, rel=1e-6)


def test_robust_prior_of_many_types_equals_scanpro():
    from scanpro.ebayes import squeeze_var

    rng = np.random.default_rng(5)
    n, k = 12, 25
    x = np.column_stack([np.arange(n) < 6, np.arange(n) >= 6]).astype(float)
    y = rng.normal(0, np.sqrt(rng.gamma(3, 0.3, k)), (n, k))
    y[:, 0] *= 8  # an outlier
    c = np.array([1.0, -1.0])
    found = composition.moderated(y, x, c)
    variance = ((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum(axis=0) / 10
    _, posterior, prior_df = squeeze_var(variance.copy(), np.full(k, 10.0), robust=True)
    assert found["se"].to_numpy() == pytest.approx(np.sqrt(posterior / 3))
    assert found["df"].to_numpy() == pytest.approx(np.minimum(10 + prior_df, 250))


@pytest.mark.parametrize("transform", ["logit", "arcsin"])
def test_propeller_equals_scanpro(transform):
    from scanpro import run_stats

    parts, samples, one = cohort(5, seed=4)
    long = parts.counts.stack().rename("n").reset_index().set_axis(["sample", "type", "n"], axis=1)
    cells = long.loc[long.index.repeat(long["n"]), ["sample", "type"]].merge(samples, on="sample")
    theirs = run_stats(cells, "type", "sample", "phase", transform=transform, conditions=["POST", "PRE"], verbosity=0).results
    made = run(parts, samples, [one], transforms=[transform])
    mine = pick(made, method=f"propeller_{transform}").set_index("cell_type")
    assert mine["p_value"].to_numpy() == pytest.approx(theirs.loc[mine.index, "p_values"].to_numpy(), rel=1e-9)
    assert mine["p_adjusted"].to_numpy() == pytest.approx(theirs.loc[mine.index, "adjusted_p_values"].to_numpy(), rel=1e-9)
    # the direction comes from the means: B falls, whatever the order of scanpro's conditions
    assert mine.loc["B", "effect"] < 0
    assert mine.loc["B", "mean_a"] < mine.loc["B", "mean_b"]
    assert ((mine["ci_low"] < mine["effect"]) & (mine["effect"] < mine["ci_high"])).all()
    outside = (mine["ci_low"] > 0) | (mine["ci_high"] < 0)
    assert (outside == (mine["p_value"] < 0.05)).all()


def test_paired_propeller_takes_patients_as_blocks():
    """With patients as blocks the effect is the mean difference of the pairs and t of one type the paired one, moderated."""
    parts, samples, one = cohort(6, paired=True)
    made = pick(run(parts, samples, [one]), method="propeller_logit").set_index("cell_type")
    y = composition.transformed(parts.counts, "logit", 0.01)
    a, b = y.loc[list(one.samples_a)].to_numpy(), y.loc[list(one.samples_b)].to_numpy()
    assert made["effect"].to_numpy() == pytest.approx((a - b).mean(axis=0))
    x = np.column_stack([np.repeat([1.0, 0.0], 6), np.repeat([0.0, 1.0], 6), np.tile(np.eye(6), (2, 1))[:, 1:]])
    c = np.zeros(7)
    c[:2] = 1, -1
    alone = composition.moderated(np.vstack([a, b])[:, :1], x, c)  # one type: no prior, the plain paired t
    assert alone["p_value"][0] == pytest.approx(stats.ttest_rel(a[:, 0], b[:, 0]).pvalue)


def test_pseudocounts():
    counts = pd.DataFrame([[0, 10]], columns=["a", "b"])
    assert composition.transformed(counts, "logit", 0.5).iloc[0].tolist() == pytest.approx([np.log(0.5 / 10.5), np.log(21)])
    assert composition.transformed(counts, "arcsin", 0).iloc[0].tolist() == pytest.approx([0, np.pi / 2])


def test_kruskal_and_dunn_equal_packages():
    import scikit_posthocs

    rng = np.random.default_rng(2)
    samples = sheet([(f"{p}{i}", f"{p}{i}", p) for p in ("PRE", "RES", "POST") for i in range(4)])
    values = pd.Series(rng.random(12).round(1), index=samples["sample"])  # with ties
    cells = pd.Series(100, index=values.index)
    rows = pd.DataFrame(composition.kruskal_rows(values, cells, samples, ["PRE", "RES", "POST"]))
    groups = [values[samples.loc[samples["phase"] == p, "sample"]].to_numpy() for p in ("PRE", "RES", "POST")]
    whole = rows[rows["test"] == "kruskal_wallis"].iloc[0]
    assert (whole["statistic"], whole["p_value"]) == pytest.approx(tuple(stats.kruskal(*groups)))
    assert whole["effect"] == pytest.approx(whole["statistic"] / 11)
    theirs = scikit_posthocs.posthoc_dunn(groups, p_adjust="fdr_bh")
    for name, (i, j) in {"RES_vs_PRE": (1, 2), "POST_vs_PRE": (1, 3), "POST_vs_RES": (2, 3)}.items():
        row = rows[rows["contrast"] == name].iloc[0]
        assert row["p_adjusted"] == pytest.approx(theirs.loc[i, j])
        assert row["ci_low"] < row["effect"] < row["ci_high"]
        assert row["n_cells_a"] == 400


def test_newcombe_where_a_side_is_one_sample():
    """56 of 70 against 48 of 80: 0.0524 to 0.3339 (Newcombe 1998, table II, method 10)."""
    found = composition.square_and_add(np.array([0.8]), 70, np.array([0.6]), 80)
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)
    counts = pd.DataFrame([[56, 14], [48, 32]], index=["a", "b"], columns=["T", "U"])
    samples = sheet([("a", "P1", "POST"), ("b", "P2", "PRE")])
    made = run(composition.Parts("main_type", "all", counts, {}), samples, [contrast("a", "b")])
    row = pick(made, cell_type="T", method="rank").iloc[0]
    assert row["status"] == keys.NO_REPLICATES
    assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert made["p_value"].isna().all()
    assert "takes the cells of a single patient as independent" in row["reason"]
    logit = pick(made, cell_type="T", method="propeller_logit").iloc[0]
    assert logit["effect"] == pytest.approx(np.log(56.01 / 14.01) - np.log(48.01 / 32.01))  # never bootstrapped replicates


def test_one_patient_against_several_has_a_wide_interval():
    parts, samples, one = cohort(4)
    alone = contrast(one.samples_a[:1], one.samples_b)
    row = pick(run(parts, samples, [alone]), cell_type="A", method="rank").iloc[0]
    assert row["status"] == keys.NO_REPLICATES
    shares = parts.counts["A"] / parts.counts.sum(axis=1)
    b = shares[list(one.samples_b)]
    half = stats.t.ppf(0.975, 3) * b.std() / 2
    low, _ = comparison.wilson(parts.counts.loc[one.samples_a[0], "A"], parts.counts.loc[one.samples_a[0]].sum())
    p = shares[one.samples_a[0]]
    assert row["ci_low"] == pytest.approx(p - b.mean() - np.hypot(p - low, half))


def test_absent_types_and_small_samples():
    parts, samples, one = cohort(4)
    parts.counts["E"] = 0
    parts.counts.loc["POST0"] = [3, 4, 5, 6, 0]
    made = run(parts, samples, [one])
    absent = pick(made, cell_type="E", contrast="POST_vs_PRE")
    assert absent["status"].eq(keys.NOT_ESTIMABLE).all()
    assert absent[["effect", "ci_low", "p_value", "p_adjusted"]].isna().all(axis=None)
    assert absent["reason"].eq("no cell of the type on either side").all()
    rest = pick(made, cell_type="A", contrast="POST_vs_PRE")
    assert rest["left_out"].eq("POST0").all()
    assert rest["n_patients_a"].eq(3).all()
    # the absent type leaves the fit: the p of the others is that without it, but for its pseudocount in the totals
    without = composition.Parts("main_type", "all", parts.counts.drop(columns="E"), {})
    again = pick(run(without, samples, [one]), cell_type="A", method="propeller_logit")
    assert again["p_value"].iloc[0] == pytest.approx(pick(rest, method="propeller_logit")["p_value"].iloc[0], rel=1e-3)


def test_type_absent_on_one_side_is_a_share_of_zero():
    parts, samples, one = cohort(4)
    parts.counts.loc[list(one.samples_a), "D"] = 0
    row = pick(run(parts, samples, [one]), cell_type="D", method="rank").iloc[0]
    assert row["status"] == keys.OK
    assert row["mean_a"] == 0
    assert row["rank_biserial"] == -1


def test_repeated_samples_are_shown_both_ways():
    parts, samples, one = cohort(4)
    samples.loc[samples["sample"] == "POST1", "patient"] = "Q0"
    made = pick(run(parts, samples, [one]), contrast="POST_vs_PRE", cell_type="A")
    people, taken = pick(made, unit="patient"), pick(made, unit="sample")
    assert people["n_patients_a"].eq(3).all()
    assert people["evidence"].eq(keys.REPLICATED).all()
    assert taken["n_patients_a"].eq(3).all()
    assert taken["n_a"].eq(4).all()
    assert taken["evidence"].eq(keys.EXPLORATORY).all()
    assert taken["status"].eq(keys.WARNING).all()
    assert pick(people, method="rank")["p_min_attainable"].iloc[0] == pytest.approx(2 / 35)
    assert pick(taken, method="rank")["p_min_attainable"].iloc[0] == pytest.approx(2 / 70)


def test_unresolved_counts_but_is_not_tested():
    parts, samples, one = cohort(4)
    table = parts.counts.rename(columns={"D": keys.UNRESOLVED})
    named = run(composition.Parts("main_type", "all", table, {}), samples, [one])
    plain = run(parts, samples, [one])
    assert keys.UNRESOLVED not in set(named["cell_type"])
    for method in ("rank", "propeller_logit", "clr"):
        a, b = (pick(t, cell_type="A", method=method, contrast="POST_vs_PRE")["p_value"].iloc[0] for t in (named, plain))
        assert a == pytest.approx(b)


def test_single_type_has_no_tests():
    counts = pd.DataFrame([[30], [40]], index=["a", "b"], columns=["E"])
    parts = composition.Parts("main_type", "epithelial", counts, {})
    samples = sheet([("a", "P1", "POST"), ("b", "P2", "PRE")])
    assert composition.test_parts(parts, [contrast("a", "b")], samples, [], 5, ["logit"], 0.01) == []


def test_clones_are_compared_within_their_patient():
    counts = pd.DataFrame([[30, 10], [10, 30]], index=["a", "b"], columns=["P1.C1", "P1.C2"])
    parts = composition.Parts("clone", "labelled", counts, {})
    samples = sheet([("a", "P1", "POST"), ("b", "P1", "PRE"), ("c", "P2", "RES")])
    elsewhere = contrast(["c"], ["b"])
    made = run(parts, samples, [contrast(["a", "c"], ["b"]), elsewhere])
    assert len(pick(made, method="rank")) == 2  # the contrast without a sample of P1 on side A has no row
    assert made["status"].eq(keys.NO_REPLICATES).all()
    assert pick(made, cell_type="P1.C1", method="rank")["effect"].iloc[0] == pytest.approx(0.5)
    assert composition.KRUSKAL not in set(made["method"])





def test_no_spread_is_not_estimable():
    """Equal counts everywhere: no p from any method, never 0 or 1."""
    samples = sheet([(s, s, "POST" if s < "d" else "PRE") for s in "abcdef"])
    counts = pd.DataFrame(np.tile([40, 30, 30], (6, 1)), index=list("abcdef"), columns=list("TUV"))
    made = pick(run(composition.Parts("main_type", "all", counts, {}), samples, [contrast("abc", "def")]), contrast="POST_vs_PRE")
    assert made["status"].eq(keys.NOT_ESTIMABLE).all()
    assert made[["effect", "p_value", "statistic"]].isna().all(axis=None)


# --- diversity


def test_diversity_rows():
    samples = sheet([("a", "P1", "PRE"), ("b", "P1", "POST"), ("c", "P2", "PRE"), ("d", "P3", "PRE")])
    counts = pd.DataFrame(
        [[100, 100, 0, 5], [400, 50, 50, 0], [300, 0, 0, 60], [9, 5, 5, 100]], index=list("abcd"),
        columns=["T", "U", "V", keys.UNRESOLVED],
    )  # fmt: skip
    parts = composition.Parts("main_type", "all", counts, {})
    found, pairs = composition.diversity_rows(parts, samples, 100, {s: i for i, s in enumerate("abcd")}.__getitem__)
    at = found.set_index(["sample", "index"])
    assert at.loc[("a", "shannon"), "value"] == pytest.approx(np.log(2))  # the smallest sample is not thinned out
    assert at.loc["a", "n_cells_rarefied"].eq(200).all()
    assert at.loc[("b", "hill_q2"), "value"] == pytest.approx(1 / (0.8**2 + 2 * 0.1**2), abs=0.05)
    assert at.loc[("c", "clonality"), ["status", "reason"]].tolist() == [keys.NOT_ESTIMABLE, "monoclonal"]
    assert np.isnan(at.loc[("c", "clonality"), "value"])
    assert at.loc[("c", "hill_q0"), "value"] == 1
    assert at.loc["d", "status"].eq(keys.SKIPPED_TOO_FEW_CELLS).all()  # 19 cells beside the unresolved ones
    assert at.loc["d", "reason"].eq("19 cells, 100 needed").all()
    assert set(zip(pairs["sample_a"], pairs["sample_b"], pairs["relation"], strict=True)) == {
        ("a", "b", "same_patient"), ("a", "c", "same_phase"), ("b", "c", "other"),
    }  # fmt: skip
    bray = pairs[(pairs["index"] == "bray_curtis") & (pairs["sample_b"] == "c")].set_index("sample_a")["value"]
    assert bray["a"] == pytest.approx(0.5)
    # the draws of a sample do not follow the other samples
    alone, _ = composition.diversity_rows(
        composition.Parts("main_type", "all", counts.loc[["a", "b"]], {}), samples, 100, {"a": 0, "b": 1}.__getitem__
    )
    assert alone[alone["sample"] == "b"]["value"].tolist() == found[found["sample"] == "b"]["value"].tolist()


def test_diversity_is_tested_between_patients():
    rng = np.random.default_rng(0)
    parts, samples, one = cohort(4)
    parts.counts.loc[list(one.samples_a)] = rng.multinomial(300, [0.9, 0.05, 0.03, 0.02], 4)
    found, _ = composition.diversity_rows(parts, samples, 100, lambda s: len(s))
    made = composition.adjusted(composition.test_diversity(found, [one], samples, ["PRE", "RES", "POST"]))
    row = pick(made, cell_type="hill_q1").iloc[0]
    assert row["method"] == "diversity"
    assert row["p_value"] == pytest.approx(2 / 70)
    assert row["effect"] < 0
    assert row["adjust_method"] == "BH:indices"
