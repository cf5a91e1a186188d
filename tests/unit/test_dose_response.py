"""Dose-response kernel: against published fits, R-like closed forms, scipy and slow plain searches written here."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import curve_fit, minimize

from scresist import dose_response as d
from scresist import keys, long_table
from scresist.io import InputError

DOSES = np.array([0.0, *(0.00128 * 5.0**step for step in range(11))])


def curve(ic50=100.0, hill=1.2, bottom=5.0, top=100.0, noise=1.5, seed=0, n=3, doses=DOSES):
    """Noisy wells of a curve with a relative IC50."""
    x = d.log_doses(np.repeat(doses, n))
    y = d.response(x, (bottom, top, np.log10(ic50), hill))
    return x, y + np.random.default_rng(seed).normal(0, noise, len(x))


def plain(x, bottom, top, middle, hill):
    """The model as the textbook writes it."""
    return np.where(x == 0, top, bottom + (top - bottom) / (1 + (np.maximum(x, 1e-300) / 10**middle) ** hill))


def test_model_and_gradient():
    x = d.log_doses(np.array([0.0, 1.0, 10.0, 100.0]))
    assert d.response(x, (10, 90, 1, 2)) == pytest.approx([90, 10 + 80 / 1.01, 50, 10 + 80 / 101])
    values = np.array([7.0, 96.0, 0.8, 1.3])
    for at in range(4):
        step = np.zeros(4)
        step[at] = 1e-6
        slope = (d.response(x, values + step) - d.response(x, values - step)) / 2e-6
        assert d.gradient(x, values)[:, at] == pytest.approx(slope, abs=1e-6)
    assert 10 ** d.log_absolute((10, 90, 1, 2)) == pytest.approx(10.0)  # half way is 50
    at = d.log_absolute(values)
    assert d.response(np.array([at]), values)[0] == pytest.approx(50)
    assert np.isnan(d.log_absolute((60, 100, 1, 1)))
    assert np.isnan(d.log_absolute((5, 40, 1, 1)))


@pytest.mark.real
def test_ryegrass(shared_data):
    table = pd.read_csv(shared_data / "dose_response" / "drc_ryegrass.csv")
    x, y = d.log_doses(table["conc"]), table["rootl"].to_numpy()
    made = d.estimate([(x, y)], d.ARBITRARY)[0]
    assert made.fit.values == pytest.approx([0.4814, 7.7930, np.log10(3.0580), 2.9822], abs=1e-4)
    row = d.describe(x, y, made, d.ARBITRARY, 0.05)
    assert row["ic50"] == pytest.approx(3.0580, abs=1e-4)
    assert row["ic50_se"] == pytest.approx(0.1858, abs=2e-4)  # R drc: standard error of e 0.186
    assert (row["status"], row["model"], row["ic50_kind"]) == ("ok", "free", "relative")
    # all of the fit by scipy's curve_fit, which shares no code with ours
    found, cov = curve_fit(plain, table["conc"], y, p0=[0.5, 7.8, 0.4, 2.0])
    assert made.fit.values == pytest.approx(found, abs=1e-5)
    assert row["se"] == pytest.approx(np.sqrt(cov[2, 2]), rel=1e-4)


@pytest.mark.real
def test_secalonic(shared_data):
    table = pd.read_csv(shared_data / "dose_response" / "drc_secalonic.csv")
    x, y = d.log_doses(table["dose"]), table["rootl"].to_numpy()
    made = d.estimate([(x, y)], d.ARBITRARY)[0]
    found, _ = curve_fit(plain, table["dose"], y, p0=[0.1, 5.5, -1.1, 2.5])
    assert made.fit.values == pytest.approx(found, abs=1e-4)
    assert made.status == keys.OK


@pytest.mark.real
def test_gdsc(shared_data):
    folder = shared_data / "dose_response"
    raw = pd.read_csv(folder / "GDSC_dev_raw.tsv.gz", sep="\t")
    published = pd.read_csv(folder / "GDSC_dev_published.tsv", sep="\t", index_col=0)
    names, curves = [], []
    for name, part in raw.groupby("experiment"):
        part = part.sort_values("dose_uM")
        names.append(name)
        curves.append((d.log_doses(part["dose_uM"]), part["viability_pct"].to_numpy()))
    assert len(curves) == 536
    made = d.estimate(curves)
    table = published.loc[names].assign(
        log_ic50=[one.log_ic50 for one in made], status=[one.status for one in made], text=[one.text for one in made],
        first=[y[0] for _, y in curves], last=[y[-1] for _, y in curves],
        low=[x.min() for x, _ in curves], high=[x.max() for x, _ in curves],
        auc=[d.auc(x, y, d.PERCENT) for x, y in curves],
    )  # fmt: skip
    known = table[table["log_ic50"].notna()]
    assert ((known["log_ic50"] >= known["low"]) & (known["log_ic50"] <= known["high"])).all()
    crossing = known[(known["first"] > 50) & (known["last"] < 50)]
    assert len(crossing) == 251
    assert np.corrcoef(crossing["log_ic50"], np.log10(crossing["ic50_recomputed"]))[0, 1] >= 0.99
    assert np.corrcoef(crossing["log_ic50"], np.log10(crossing["ic50_published"]))[0, 1] >= 0.95
    rest = table[table["log_ic50"].isna()]
    assert rest["status"].isin([d.OUT_OF_RANGE, keys.NOT_ESTIMABLE]).all()
    assert (rest.loc[rest["status"] == d.OUT_OF_RANGE, "text"].str.match(r"[<>] ")).all()
    # PharmacoGx gives the area above the curve
    assert np.corrcoef(table["auc"], table["auc_recomputed"])[0, 1] < -0.95
    # what the specification counts of free fits: 62 rise, 182 have |hill| > 10 (a full search finds a few more)
    free = d.fit_models(curves, {})
    assert sum(not fit.falls for fit in free) == 62
    assert 180 <= sum(abs(fit.values[d.HILL]) > d.MAX_HILL for fit in free) <= 230


@pytest.mark.parametrize(
    ("seed", "fixed"), [(0, {}), (1, {d.TOP: 100.0}), (2, {d.BOTTOM: 0.0, d.TOP: 100.0}), (3, {d.BOTTOM: 5.0})]
)
def test_least_squares_against_plain_search(seed, fixed):
    x, y = curve(seed=seed, noise=6, n=2)
    fit = d.fit_models([(x, y)], fixed)[0]
    free = [at for at in range(4) if at not in fixed]

    def cost(p):
        values = np.array([fixed.get(at, 0.0) for at in range(4)])
        values[free] = p
        return ((d.response(x, values) - y) ** 2).sum()

    start = np.array([5.0, 100.0, 2.0, 1.2])[free]
    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    other = minimize(cost, start, method="Nelder-Mead", options=options)
    assert fit.rss == pytest.approx(other.fun, rel=1e-8)
    assert fit.values[free] == pytest.approx(other.x, rel=1e-4)
    assert fit.model == {0: "free", 1: "top_100", 2: "top_100_bottom_0", 3: "bottom_5"}[seed]


def test_together_as_alone():
    curves = [curve(seed=s, ic50=10.0 ** (s % 4), n=1 + s % 3) for s in range(12)]
    together = d.estimate(curves)
    for one, alone in zip(together, (d.estimate([c])[0] for c in curves), strict=True):
        assert one.log_ic50 == pytest.approx(alone.log_ic50, abs=1e-9)
        assert (one.status, one.text) == (alone.status, alone.text)


def test_wald_and_profile_intervals():
    x, y = curve(seed=4, noise=5)
    made = d.estimate([(x, y)])[0]
    row = d.describe(x, y, made, d.PERCENT, 0.05)
    # Wald by the delta method with numerical derivatives of the absolute IC50
    slope = np.zeros(4)
    for at in range(4):
        step = np.zeros(4)
        step[at] = 1e-5
        slope[at] = (d.log_absolute(made.fit.values + step) - d.log_absolute(made.fit.values - step)) / 2e-5
    se = np.sqrt(slope @ made.fit.covariance @ slope)
    quantile = stats.t.ppf(0.975, len(y) - 4)
    assert row["wald_low"] == pytest.approx(made.log_ic50 - quantile * se, abs=1e-6)
    # profile by a plain search over everything else at the ends found
    level = made.fit.rss * (1 + stats.f.ppf(0.95, 1, len(y) - 4) / (len(y) - 4))

    def least(theta):
        def cost(p):
            bottom, top, hill = p
            if not bottom < 50 < top:
                return 1e12
            middle = theta - np.log10((top - 50) / (50 - bottom)) / hill
            return ((d.response(x, (bottom, top, middle, hill)) - y) ** 2).sum()

        start = made.fit.values[[0, 1, 3]]
        return minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 5000}).fun

    assert least(row["profile_low"]) == pytest.approx(level, rel=1e-4)
    assert least(row["profile_high"]) == pytest.approx(level, rel=1e-4)
    assert row["profile_low"] < made.log_ic50 < row["profile_high"]
    assert row["ic50_low"] == pytest.approx(10 ** row["profile_low"])


def test_intervals_hold_the_truth_in_about_95_percent():
    truth = d.log_absolute((5, 100, 2, 1.2))
    hits = {"wald": 0, "profile": 0}
    curves = [curve(seed=100 + s, noise=4, n=1) for s in range(120)]
    for (x, y), made in zip(curves, d.estimate(curves), strict=True):
        row = d.describe(x, y, made, d.PERCENT, 0.05)
        for kind in hits:
            hits[kind] += row[f"{kind}_low"] <= truth <= row[f"{kind}_high"]
    for n in hits.values():
        assert 107 <= n <= 120  # binomial 99.9 % limits of 120 x 0.95


def test_band_against_simulation():
    x, y = curve(seed=5, noise=4)
    fit = d.fit_models([(x, y)], {})[0]
    at = np.array([0.0, 2.0, 3.0])
    draws = np.random.default_rng(0).multivariate_normal(fit.values, fit.covariance, 20_000)
    spread = np.std([d.response(at, values) for values in draws], axis=0)
    assert fit.band(at, 0.05) / stats.t.ppf(0.975, fit.df) == pytest.approx(spread, rel=0.06)


def falling(*heights):
    """Points at doses 1, 2, 4 ... with two wells each."""
    x = np.repeat(np.log10(2.0 ** np.arange(len(heights))), 2)
    return x, np.repeat(np.array(heights, dtype=float), 2) + np.tile([-0.5, 0.5], len(heights))


@pytest.mark.parametrize(
    ("points", "status", "text", "reason"),
    [
        (falling(99, 97, 95, 92), keys.NOT_ESTIMABLE, "", "4 doses above 0, 5 needed"),
        ((np.arange(5.0), np.array([99.0, 90, 50, 10, 1])), keys.NOT_ESTIMABLE, "", "5 points, 6 needed"),
        (falling(100, 99, 95, 85, 76, 72, 70, 70), d.OUT_OF_RANGE, "> 128", "levels off at 69."),
        (falling(100, 99, 98, 96, 93, 88, 80, 70), d.OUT_OF_RANGE, "> 128", "above the highest tested dose"),
        (falling(30, 25, 18, 12, 8, 5, 3, 2), d.OUT_OF_RANGE, "< 1", "begins at 39.8 %, below 50 %"),
        (falling(33, 20, 11, 6, 3, 2, 1, 1), d.OUT_OF_RANGE, "< 1", "below the lowest tested dose"),
        (falling(60, 64, 70, 77, 86, 94, 98, 99), keys.NOT_ESTIMABLE, "> 128", "rising"),
        (falling(5, 9, 20, 50, 80, 91, 95, 97), keys.NOT_ESTIMABLE, "", "rising"),
        ((np.arange(6.0), np.full(6, 100.0)), d.OUT_OF_RANGE, "> 100000", "flat"),
        ((np.arange(6.0), np.full(6, 20.0)), d.OUT_OF_RANGE, "< 1", "flat"),
        ((np.arange(6.0), np.full(6, 50.0)), keys.NOT_ESTIMABLE, "", "flat"),
    ],
)  # fmt: skip
def test_no_number_where_there_is_none(points, status, text, reason):
    made = d.estimate([points])[0]
    assert (made.status, made.text) == (status, text)
    assert reason in made.reason
    assert not made.known
    row = d.describe(*points, made, d.PERCENT, 0.05)
    for name in ("ic50", "log10_ic50_abs", "se", "wald_low", "profile_high", "ic50_low", "ic50_se"):
        assert np.isnan(row[name])


SERIES = d.log_doses(np.array([0, 1, 2, 4, 8, 16, 32, 64, 128.0]))  # with an untreated well


@pytest.mark.parametrize(
    ("heights", "part"),
    [
        ((30, 31, 29, 30, 32, 28, 30, 31, 29), "wells at dose 0 are at 30 % of untreated: check the normalisation"),
        ((49.9,) * 9, "check the normalisation"),
        ((51, 50.5, 51.5, 49, 52, 51, 50, 51, 52), "wells at dose 0 are at 51 %"),
        ((40, 35, 28, 18, 12, 8, 5, 3, 2), "wells at dose 0 are at 40 %"),
        ((100, 20, 90, 10, 80, 30, 95, 5, 60), "the mean response of 48.8 % is not clearly above or below 50 %"),
    ],
)
def test_no_side_without_an_effect_or_with_a_wrong_normalisation(heights, part):
    made = d.estimate([(SERIES, np.array(heights, dtype=float))])[0]
    assert (made.status, made.text) == (keys.NOT_ESTIMABLE, "")
    assert part in made.reason


def test_sides_that_are_clear():
    # insensitive lines have no R2 to speak of, and are known to be above
    for heights, text in (((100, 99, 101, 100, 98, 101, 99, 100, 101), "> 128"), ((100, 20, 12, 8, 5, 3, 2, 1, 1), "< 1")):
        made = d.estimate([(SERIES, np.array(heights, dtype=float))])[0]
        assert (made.status, made.text) == (d.OUT_OF_RANGE, text), heights
    # on another scale the quality of the fit is told
    x = np.repeat(np.log10(2.0 ** np.arange(8)), 2)
    noisy = d.response(x, (2, 10, 5, 0.8)) + np.tile([-2.0, 2.0], 8)
    made = d.estimate([(x, noisy)], d.ARBITRARY, {d.BOTTOM: 2.0, d.TOP: 10.0})[0]
    assert made.status != d.OUT_OF_RANGE or "R2" in made.reason


def test_flat_with_noise_is_beyond_the_doses():
    for seed in range(10):
        x = d.log_doses(np.repeat(DOSES, 3))
        made = d.estimate([(x, 100 + np.random.default_rng(seed).normal(0, 4, len(x)))])[0]
        assert not made.known
        assert made.text == "> 12500"


def test_ladder_of_models():
    assert d.ladder(d.PERCENT, {}) == [{}, {d.TOP: 100.0}, {d.BOTTOM: 0.0, d.TOP: 100.0}]
    assert d.ladder(d.PERCENT, {d.TOP: 90.0}) == [{d.TOP: 90.0}, {d.BOTTOM: 0.0, d.TOP: 90.0}]
    assert d.ladder(d.PERCENT, {d.BOTTOM: 0.0, d.TOP: 95.0}) == [{d.BOTTOM: 0.0, d.TOP: 95.0}]
    assert d.ladder(d.ARBITRARY, {}) == [{}]
    # a curve without its lower end: a free fit cannot tell the bottom, which is then given
    x, y = curve(ic50=400.0, noise=1.5, n=1, hill=0.8, bottom=0, doses=DOSES[:-3], seed=2)
    free, made = d.fit_models([(x, y)], {})[0], d.estimate([(x, y)])[0]
    assert d.unreliable(free, d.PERCENT)
    assert made.fit.model.startswith("top_100")
    assert made.text == "> 100"
    # a line on another scale is not determined
    line = np.linspace(0, 2, 12)
    assert d.estimate([(line, 5 - 0.1 * line)], d.ARBITRARY)[0].status == keys.NOT_ESTIMABLE


def test_step_and_poor_fit_are_warnings():
    made = d.estimate([falling(100, 101, 99, 100, 1, 0, 1, 0)])[0]
    assert made.status == keys.WARNING
    assert "one step of dose" in made.reason
    assert 8 < 10**made.log_ic50 < 16
    row = d.describe(*falling(100, 101, 99, 100, 1, 0, 1, 0), made, d.PERCENT, 0.05)
    assert row["ic50_low"] <= 8 * (1 + 1e-9)
    assert row["ic50_high"] >= 16 * (1 - 1e-9)
    with warnings.catch_warnings():  # points without any spread: infinite times nothing
        warnings.simplefilter("error")
        points = SERIES, np.array([100.0] * 5 + [0.0] * 4)
        made = d.estimate([points])[0]
        row = d.describe(*points, made, d.PERCENT, 0.05)
    assert made.status == keys.WARNING
    assert (row["ic50_low"], row["ic50_high"]) == pytest.approx((8, 16))
    assert (row["wald_low"], row["wald_high"]) == (-np.inf, np.inf)
    x, y = curve(noise=35, n=2, seed=3)
    made = d.estimate([(x, y)])[0]
    assert made.status == keys.WARNING
    assert "R2" in made.reason


def test_auc():
    x = np.log10(np.array([1.0, 10, 100]))
    assert d.auc(x, np.array([100.0, 50, 0]), d.PERCENT) == pytest.approx(0.5)
    assert d.auc(x, np.array([8.0, 4, 2]), d.ARBITRARY) == pytest.approx((6 + 3) / 2)
    assert np.isnan(d.auc(np.array([0.0, -np.inf]), np.array([1.0, 2.0]), d.PERCENT))
    points = curve(noise=0.0, n=1)
    made = d.estimate([points])[0]
    fine = np.linspace(np.log10(DOSES[1]), np.log10(DOSES[-1]), 20_001)
    heights = d.response(fine, made.fit.values)
    expected = np.trapezoid(heights, fine) / (fine[-1] - fine[0]) / 100
    assert d.describe(*points, made, d.PERCENT, 0.05)["auc_fitted"] == pytest.approx(expected, abs=1e-6)


# --- tests between curves


def group(replicates, points=None):
    points = points or curve()
    return d.Group(tuple(replicates), *points, d.estimate([points])[0])


def test_anova_and_tukey_by_hand():
    values = {"a": [1.0, 1.2, 1.1], "b": [1.5, 1.4, 1.6], "c": [2.0, 2.1, 2.2]}
    rows = d.compare_groups({name: group(v) for name, v in values.items()}, d.TREATMENTS, 0.05)
    anova = rows[0]
    # means 1.1, 1.5, 2.1, grand mean 47/30; each group has a sum of squares of 0.02
    between = 3 * sum((m - 47 / 30) ** 2 for m in (1.1, 1.5, 2.1))
    assert (anova["df1"], anova["df2"]) == (2, 6)
    assert anova["statistic"] == pytest.approx(between / 2 / (0.06 / 6))
    assert anova["effect"] == pytest.approx(between / (between + 0.06))
    pairs = {row["contrast"]: row for row in rows if row["test"] == "tukey_hsd"}
    assert list(pairs) == ["b_vs_a", "c_vs_a", "c_vs_b"]
    q = 0.4 / np.sqrt(0.01 / 3)
    assert pairs["b_vs_a"]["effect"] == pytest.approx(0.4)
    assert pairs["b_vs_a"]["p_value"] == pytest.approx(stats.studentized_range.sf(q, 3, 6), rel=1e-6)
    half = stats.studentized_range.ppf(0.95, 3, 6) * np.sqrt(0.01 / 3)
    assert pairs["b_vs_a"]["ci_low"] == pytest.approx(0.4 - half, rel=1e-6)
    assert pairs["c_vs_a"]["fold_change"] == pytest.approx(10)
    assert {row["evidence"] for row in rows} == {d.IN_VITRO}


def test_replicates_without_ic50_leave():
    rows = d.compare_groups(
        {"a": group([1.0, 1.1, np.nan]), "b": group([2.0, np.nan, np.nan]), "c": group([1.5, 1.6])}, d.TREATMENTS, 0.05
    )
    anova = rows[0]
    assert (anova["status"], anova["df1"], anova["df2"]) == (keys.WARNING, 1, 2)
    assert anova["statistic"] == pytest.approx(stats.f_oneway([1.0, 1.1], [1.5, 1.6]).statistic)
    assert anova["groups"] == "a=2 of 3;b=1 of 3;c=2 of 2"
    (pair,) = (row for row in rows if row["contrast"] == "b_vs_a" and row["test"] != "extra_sum_of_squares_f")
    assert pair["status"] == keys.NO_REPLICATES
    # an interval over wells is told as one: 36 wells a side, whatever the number of replicates
    assert (pair["unit"], pair["test"], pair["n_a"], pair["n_b"]) == ("well", "wald_wells", 36, 36)
    assert pair["ci_low"] < pair["effect"] < pair["ci_high"]
    assert np.isnan(pair["p_value"])
    alone = d.compare_groups({"a": group([1.0]), "b": group([2.0])}, d.TREATMENTS, 0.05)
    assert alone[0]["status"] == keys.NO_REPLICATES
    assert "a 1, b 1; 2 needed" in alone[0]["reason"]
    equal = d.compare_groups({"a": group([1.0, 1.0]), "b": group([2.0, 2.0])}, d.TREATMENTS, 0.05)
    assert equal[0]["status"] == keys.NOT_ESTIMABLE


def test_extra_sum_of_squares_f():
    first, second = curve(ic50=100, seed=1, noise=3), curve(ic50=130, seed=2, noise=3)
    groups = {"a": group([2.0, 2.1], first), "b": group([2.2, 2.3], second)}
    rows = d.compare_groups(groups, d.TREATMENTS, 0.05)
    row = next(r for r in rows if r["test"] == "extra_sum_of_squares_f")
    (x1, y1), (x2, y2) = first, second

    def cost(p):  # one absolute IC50 for both curves, everything else their own
        total = 0.0
        for (x, y), (bottom, top, hill) in zip(((x1, y1), (x2, y2)), (p[1:4], p[4:7]), strict=True):
            middle = p[0] - np.log10((top - 50) / (50 - bottom)) / hill
            total += ((d.response(x, (bottom, top, middle, hill)) - y) ** 2).sum()
        return total

    best = np.inf
    start = np.array([2.05, 5, 100, 1.2, 5, 100, 1.2])
    for _ in range(4):
        options = {"xatol": 1e-10, "fatol": 1e-10, "maxiter": 50_000, "maxfev": 50_000}
        found = minimize(cost, start, method="Nelder-Mead", options=options)
        best, start = found.fun, found.x
    separate = sum(g.pooled.fit.rss for g in groups.values())
    df2 = len(y1) + len(y2) - 8
    assert (row["df1"], row["df2"], row["unit"]) == (1, df2, "well")
    expected = (best - separate) / (separate / df2)
    assert row["statistic"] == pytest.approx(expected, rel=1e-4)
    assert row["p_value"] == pytest.approx(stats.f.sf(expected, 1, df2), rel=1e-3)
    assert row["effect"] == pytest.approx(groups["b"].pooled.log_ic50 - groups["a"].pooled.log_ic50)


def test_shared_relative_ic50_on_another_scale():
    points = [curve(ic50=ic50, seed=s, noise=0.2, top=8, bottom=1) for s, ic50 in enumerate((100, 140))]
    made = [d.Group((), *p, d.estimate([p], d.ARBITRARY)[0]) for p in points]

    def cost(p):
        sides = zip(points, (p[1:4], p[4:7]), strict=True)
        return sum(((d.response(x, (b, t, p[0], h)) - y) ** 2).sum() for (x, y), (b, t, h) in sides)

    best, start = np.inf, np.array([2.05, 1, 8, 1.2, 1, 8, 1.2])
    for _ in range(4):
        options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 50_000, "maxfev": 50_000}
        found = minimize(cost, start, method="Nelder-Mead", options=options)
        best, start = found.fun, found.x
    assert d.shared_rss([made])[0] == pytest.approx(best, rel=1e-6)
    assert best > sum(g.pooled.fit.rss for g in made)


@pytest.mark.parametrize(("n_groups", "df"), [(2, 2), (3, 6), (4, 8), (20, 40), (5, 2000)])
def test_studentized_range_as_scipy_has_it(n_groups, df):
    q = [0.01, 0.5, 1.0, 2.0, 3.5, 5.0, 8.0, 15.0]
    assert d.studentized_range_sf(q, n_groups, df) == pytest.approx(stats.studentized_range.sf(q, n_groups, df), abs=1e-10)


def test_tukey_as_scipy_has_it():
    rng = np.random.default_rng(0)
    values = {name: rng.normal(1 + at / 3, 0.2, 2 + at) for at, name in enumerate("abcd")}
    rows = d.compare_groups({name: group(v) for name, v in values.items()}, d.LINES, 0.1)
    test = stats.tukey_hsd(*values.values())
    interval = test.confidence_interval(0.9)
    found = {row["contrast"]: row for row in rows if row["test"] == "tukey_hsd"}
    assert len(found) == 6
    for i, b in enumerate("abcd"):
        for j, a in enumerate("abcd"):
            if j > i:
                row = found[f"{a}_vs_{b}"]
                assert row["p_value"] == pytest.approx(test.pvalue[j, i], abs=1e-9)
                assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low[j, i], interval.high[j, i]), rel=1e-6)


def test_many_groups_are_compared_as_a_whole():
    n = d.MAX_PAIRED_GROUPS + 1
    points = [curve(ic50=100 + at, seed=at, n=1) for at in range(n)]
    made = d.estimate(points)
    groups = {f"L{at:02d}": d.Group((one.log_ic50, one.log_ic50 + 0.01), *points[at], one) for at, one in enumerate(made)}
    anova, whole = d.compare_groups(groups, d.LINES, 0.05)
    assert (anova["test"], whole["test"]) == ("anova", "extra_sum_of_squares_f")
    assert whole["df1"] == n - 1
    for row in (anova, whole):
        assert np.isfinite(row["p_value"])
        assert row["reason"] == "21 groups: compared as a whole only, pairs of 20 at most"


def test_pairs_are_no_surer_than_their_comparison():
    rng = np.random.default_rng(1)
    rows = []
    points = curve()
    made = d.estimate([points])[0]
    for line in range(30):  # one of 30 comparisons differs
        values = {t: rng.normal(2 + (line == 0) * (t == "kd"), 0.1, 3) for t in ("ctl", "kd", "oe")}
        known = {t: np.array(v) for t, v in values.items()}
        groups = {t: d.Group(tuple(v), *points, made) for t, v in values.items()}
        own = [d._anova(known, d.TREATMENTS, ""), *d._tukey(known, known, groups, d._pairs(groups), 0.05)]
        rows += [{**row, "comparison": d.TREATMENTS, "line": f"L{line:02d}", "compound": "X"} for row in own]
    table = d.adjusted_tests(rows)
    whole = table[table["test"] == "anova"].set_index("line")
    pairs = table[table["test"] == "tukey_hsd"]
    assert list(whole["p_adjusted"]) == pytest.approx(stats.false_discovery_control(whole["p_value"]))
    expected = np.maximum(pairs["p_value"], whole.loc[pairs["line"], "p_adjusted"].to_numpy())
    assert pairs["p_adjusted"].tolist() == pytest.approx(expected.tolist())
    assert set(pairs["adjust_method"]) == {"Tukey, BH:comparisons of treatments"}
    assert set(pairs.loc[pairs["p_adjusted"] < 0.05, "line"]) == {"L00"}


def test_what_is_compared():
    curves = [("L1", "ctl", "X"), ("L1", "kd", "X"), ("L2", "ctl", "X"), ("L1", "ctl", "Y")]
    assert d.comparisons(curves, []) == [
        ("treatments", {"line": "L1", "compound": "X"}, ["ctl", "kd"]),
        ("lines", {"treatment": "ctl", "compound": "X"}, ["L1", "L2"]),
    ]
    assert d.comparisons(curves, ["kd"])[0][2] == ["kd", "ctl"]


# --- the table of wells


def parsed(text):
    return long_table.parse(text, "plates.csv", d.ALIASES)


def test_wells_from_optical_densities_by_hand():
    text = "line,compound,dose,unit,od_drug,od_nodrug,od_day0,od_blank\n"
    text += "L,X,1,nM,0.65,1.10,0.20,0.10\nL,X,10,nM,0.15,1.10,0.20,0.10\n"
    wells, problems = d.wells(parsed(text), "", d.PERCENT)
    assert not problems
    # (0.55 - 0.10) / (1.00 - 0.10) = 50 %, (0.05 - 0.10) / 0.90 = -5.56 %: not cut at 0
    assert wells["response"].tolist() == pytest.approx([50.0, -100 * 0.05 / 0.9])
    assert wells["treatment"].tolist() == ["none", "none"]


def test_wells_ignore_the_order_of_rows():
    wanted = [(t, r, x) for t in "ab" for r in "12" for x in (1, 2)]
    rows = [f"L,{t},X,{r},{dose},nM,{50 + i}" for i, (t, r, dose) in enumerate(wanted)]
    head = "Cell line,group,drug,rep,concentration,dose unit,viability\n"
    a, _ = d.wells(parsed(head + "\n".join(rows)), "", d.PERCENT)
    b, _ = d.wells(parsed(head + "\n".join(rows[::-1])), "", d.PERCENT)
    pd.testing.assert_frame_equal(a, b)
    assert list(a) == list(d.WELL_COLUMNS)


def test_every_fault_of_wells_at_once():
    text = (
        "line;compound;dose;unit;response\nL;X;-1;nM;50\nL;X;abc;nM;50\nL;;2;nM;50\nL;X;3;;50\nL;X;4;uM;50\nL;X;5;nM;\nL;X;6;nM;50,5\n"
        "L;X;inf;nM;50\n"
    )
    _, problems = d.wells(parsed(text), "", d.PERCENT)
    told = str(long_table.told(problems, "the tables"))
    for part in (
        "row 2, column dose: -1; expected 0 or above. Give doses, not their logarithms",
        "row 3, column dose: 'abc'; expected a number",
        "row 4, column compound: empty",
        "row 5, column unit: empty; expected a unit such as nM",
        "row 6, column unit: compound X has doses in nM (5 rows), uM (1 rows); expected one unit per compound",
        "row 7, column response: empty",
        "row 8, column response: '50,5'; expected a number. Write the decimal point as .",
        "row 9, column dose: 'inf'",
    ):
        assert part in told
    assert told.startswith("8 problems with the tables")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("line,compound,unit,response\nL,X,nM,5\n", "column dose: no such column"),
        ("line,compound,doze,unit,response\nL,X,1,nM,5\n", "Rename doze to dose"),
        ("line,compound,dose,unit\nL,X,1,nM\n", "column response: no such column"),
        ("line,compound,dose,unit,od_drug,od_day0\nL,X,1,nM,1,1\n", "column od_nodrug: no such column"),
        ("line,compound,dose,unit,od_drug,od_nodrug,od_day0,response\nL,X,1,nM,1,2,1,5\n", "one of them"),
        ("line,compound,dose,unit,od_drug,od_nodrug,od_day0\nL,X,1,nM,1,0.5,0.5\n", "expected more than at day 0"),
        ("line,compound,dose,unit,response\nL,X,1,nM,0.9\nL,X,2,nM,0.2\n", "Multiply by 100"),
    ],
)
def test_faults_of_wells(text, part):
    _, problems = d.wells(parsed(text), "", d.PERCENT)
    assert part in str(long_table.told(problems, "the tables"))


def test_default_unit_and_micro():
    wells, problems = d.wells(parsed("line,compound,dose,response\nL,X,1,55\n"), "nM", d.PERCENT)
    assert not problems
    assert wells["unit"].tolist() == ["nM"]
    text = "line,compound,dose,unit,response\nL,X,1,\u00b5M,55\nL,X,2,\u03bcM,55\nL,X,4,uM,55\n"
    wells, problems = d.wells(parsed(text), "", d.PERCENT)
    assert not problems
    assert set(wells["unit"]) == {"uM"}


def test_curve_names():
    assert d.curve_name("L", "none", "X") == "L / X"
    assert d.curve_name("L", "kd", "X") == "L / kd / X"
    with pytest.raises(InputError, match="first row is empty"):
        parsed("\n1,2\n")


def test_plateaus_and_references_that_are_named():
    assert d.fixed_plateaus(None, None) == ({}, "")
    assert d.fixed_plateaus(0, 100.0) == ({d.BOTTOM: 0.0, d.TOP: 100.0}, "")
    assert d.fixed_plateaus(2, 1)[1] == "--top_fixed 1 is not above --bottom_fixed 2; give a higher top"
    table = pd.DataFrame({"treatment": ["none", "shX"], "line": ["L", "K"]})
    assert d.references(" shX, K ,", table) == (["shX", "K"], "")
    assert d.references("no", table.iloc[:0]) == (["no"], "")
    text = "--control no: no such treatment or line; found the treatments none, shX and the lines K, L. Write one of them."
    assert d.references("no,K", table) == (["no", "K"], text)


def test_wells_of_several_files(tmp_path):
    for name, unit in (("a.csv", "nM"), ("b.csv", "")):
        (tmp_path / name).write_text(f"line,compound,dose,unit,response\nL,X,0,{unit},100\nL,X,2,{unit},40\n")
    paths = [tmp_path / "b.csv", tmp_path / "a.csv"]
    made, table, problems = d.read_wells(paths, "nM", d.PERCENT)
    assert problems == []
    assert made["dose"].tolist() == [0, 0, 2, 2]  # dose 0 is an untreated well
    assert len(table) == 4
    _, _, problems = d.read_wells(paths, "", d.PERCENT)
    assert [(name, problem.column) for name, problem in problems] == [("b.csv", "unit")]


def test_profile_derivatives_also_where_hill_runs_away():
    """Against central differences at an ordinary place; and without an error at any hill that a search may try."""
    x = np.log10(0.01 * 4.0 ** np.arange(9))
    y = np.array([99, 101, 97, 88, 61, 30, 14, 9, 11], dtype=float)
    made = d.estimate([(x, y)])[0]
    pinned = d._Pinned(x, y, made.fit, made.kind)
    others = made.fit.values[pinned.columns]
    exact = pinned.jacobian(made.log_ic50 + 0.2, others)
    for i in range(len(others)):
        step = np.zeros(len(others))
        step[i] = 1e-6 * max(1.0, abs(others[i]))
        up, down = (pinned.residual(made.log_ic50 + 0.2, others + sign * step) for sign in (1, -1))
        assert exact[:, i] == pytest.approx((up - down) / (2 * step[i]), rel=1e-4, abs=1e-6)
    for hill in (1e-200, 1e160, 1e300):
        others[pinned.columns.index(d.HILL)] = hill
        with np.errstate(all="ignore"):
            assert pinned.jacobian(made.log_ic50, others).shape == (9, len(others))
