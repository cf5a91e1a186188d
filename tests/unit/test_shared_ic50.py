"""One IC50 for several curves: against dense grids, scipy's joint least squares from many starts, and nested totals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

from scresist import dose_response as d
from scresist import shared_ic50


def curves(n, spread, seed, scale=d.PERCENT, fixed=None, n_replicates=2, noise=4.0):
    """Curves with IC50s that differ by `spread` powers of ten, as they come out of `estimate`."""
    rng = np.random.default_rng(seed)
    x = np.tile(np.linspace(-2, 3, 10), n_replicates)
    made = []
    for _ in range(n):
        y = d.response(x, (rng.uniform(0, 20), 100, rng.normal(0.5, spread), rng.uniform(0.7, 2))) + rng.normal(0, noise, len(x))
        found = d.estimate([(x, y)], scale, fixed)[0]
        if found.known:
            kind = found.kind == d.ABSOLUTE
            made.append(shared_ic50.Curve(x, y, found.fit.values, found.fit.free, found.log_ic50, kind))
    return made


def pinned(curve, theta):
    """Least RSS of one curve at theta, by scipy from many starts, in the parameters of the textbook."""
    free = [at for at in (0, 1, 3) if at in curve.free]

    def residual(p):
        values = curve.values.copy()
        values[free] = p
        values[2] = theta
        if curve.absolute:
            values[2] -= np.log10((values[1] - 50) / (50 - values[0])) / values[3]
        return d.response(curve.log_dose, values) - curve.y

    limits = {0: (-np.inf, 50 - 1e-9), 1: (50 + 1e-9, np.inf), 3: (1e-3, 10.0)}
    if not curve.absolute:
        limits.update({0: (-np.inf, np.inf), 1: (-np.inf, np.inf)})
    low, high = (np.array([limits[at][side] for at in free]) for side in (0, 1))
    best = np.inf
    for bottom, top in ((0.0, 100.0), (35.0, 100.0), (0.0, 65.0)):
        for hill in (0.3, 1.0, 8.0):
            start = np.array([{0: bottom, 1: top, 3: hill}[at] for at in free])
            best = min(best, 2 * least_squares(residual, start, bounds=(low, high), x_scale="jac", max_nfev=200).cost)
    return best


def joint(members):
    """All parameters at once, by scipy from many starts (absolute IC50, free model)."""
    n = len(members)

    def residual(p):
        parts = []
        for curve, (bottom, top, hill) in zip(members, p[1:].reshape(n, 3), strict=True):
            middle = p[0] - np.log10((top - 50) / (50 - bottom)) / hill
            parts.append(d.response(curve.log_dose, (bottom, top, middle, hill)) - curve.y)
        return np.concatenate(parts)

    low = np.array([-5.0, *([-np.inf, 50 + 1e-9, 1e-3] * n)])
    high = np.array([6.0, *([50 - 1e-9, np.inf, 10.0] * n)])
    own = [curve.log_ic50 for curve in members]
    best = np.inf
    for theta in np.linspace(min(own), max(own), 9):
        for hill in (0.7, 1.5, 4.0):
            start = np.array([theta, *([10.0, 95.0, hill] * n)])
            best = min(best, 2 * least_squares(residual, start, bounds=(low, high), x_scale="jac", max_nfev=300).cost)
    return best


@pytest.mark.parametrize(("seed", "spread"), [(1, 0.05), (2, 0.3), (4, 0.8)])
def test_two_curves_against_joint_least_squares(seed, spread):
    members = curves(2, spread, seed)
    assert all(curve.free == (0, 1, 2, 3) for curve in members)
    found = shared_ic50.least_rss([members])[0]
    other = joint(members)
    assert found <= other * (1 + 1e-6)  # never worse than the other search
    assert found == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize(
    ("scale", "fixed"),
    [(scale, fixed) for scale in d.SCALES for fixed in ({}, {d.TOP: 100.0}, {d.BOTTOM: 5.0}, {d.BOTTOM: 5.0, d.TOP: 100.0})],
)
def test_each_model_pinned_as_by_plain_search(scale, fixed):
    members = curves(3, 0.3, 5, scale, fixed)
    known = shared_ic50._Curves(members)
    for theta in (0.3, 0.9):
        found, _, _ = known.profile(np.arange(len(members)), np.full(len(members), theta))
        expected = [pinned(curve, theta) for curve in members]
        assert found == pytest.approx(expected, rel=2e-4)  # the grid's own tolerance is coarse


def test_derivatives():
    for scale, fixed in ((d.PERCENT, {d.TOP: 100.0}), (d.PERCENT, {d.BOTTOM: 5.0}), (d.PERCENT, {d.BOTTOM: 5.0, d.TOP: 100.0})):
        members = curves(1, 0.3, 5, scale, fixed)
        batch = shared_ic50._Batch(members)
        at, theta, step = np.array([0]), np.array([0.7]), 1e-6
        u, h = batch.u + (0.2 if batch.free_u else 0), batch.h + 0.1
        _, to_u, to_h = batch.rest(at, theta, u, h, slopes=True)
        sides = [batch.rest(at, theta, u, h + s * step, slopes=False)[0] for s in (-1, 1)]
        assert to_h == pytest.approx((sides[1] - sides[0]) / (2 * step), abs=1e-4)
        if batch.free_u:
            sides = [batch.rest(at, theta, u + s * step, h, slopes=False)[0] for s in (-1, 1)]
            assert to_u == pytest.approx((sides[1] - sides[0]) / (2 * step), abs=1e-4)


@pytest.mark.parametrize(("n", "spread"), [(6, 0.5), (20, 0.5)])
def test_many_curves_against_a_dense_grid(n, spread):
    members = curves(n, spread, 3, n_replicates=3)
    known = shared_ic50._Curves(members)
    own = [curve.log_ic50 for curve in members]
    number = np.arange(len(members))
    thetas = np.linspace(min(own), max(own), 151)
    totals = known.profile(np.tile(number, 151), np.repeat(thetas, len(members)))[0].reshape(151, -1).sum(axis=1)
    found = shared_ic50.least_rss([members])[0]
    separate = sum(((d.response(c.log_dose, c.values) - c.y) ** 2).sum() for c in members)
    assert separate < found <= totals.min() * (1 + 1e-9)
    assert found == pytest.approx(totals.min(), rel=5e-3)


def test_alone_as_together_and_in_any_order():
    members = curves(5, 0.4, 7)
    sets = [members, members[:2], members[3:], members[::-1]]
    together = shared_ic50.least_rss(sets)
    alone = [shared_ic50.least_rss([one])[0] for one in sets]
    assert together.tolist() == alone  # to the last digit: parts may be shared out in any way
    assert together[0] == pytest.approx(together[3], rel=1e-9)
    assert shared_ic50.least_rss([]).tolist() == []


def test_equal_curves_lose_nothing():
    one = curves(1, 0.3, 1)[0]
    rss = ((d.response(one.log_dose, one.values) - one.y) ** 2).sum()
    assert shared_ic50.least_rss([[one, one]])[0] == pytest.approx(2 * rss, rel=1e-6)


def test_nelder_mead_finds_nothing_better():
    members = curves(3, 0.4, 9)
    known = shared_ic50._Curves(members)

    def total(theta):
        return known.profile(np.arange(3), np.full(3, float(theta[0])))[0].sum()

    found = shared_ic50.least_rss([members])[0]
    for start in [curve.log_ic50 for curve in members]:
        assert found <= minimize(total, [start], method="Nelder-Mead").fun * (1 + 1e-9)


def test_the_work_grows_with_the_number_of_curves(monkeypatch):
    """Rows that are solved, not seconds: twice the curves over the same range are about twice the rows."""
    counted = []
    solve = shared_ic50._Batch.solve
    monkeypatch.setattr(shared_ic50._Batch, "solve", lambda self, at, *rest: counted.append(len(at)) or solve(self, at, *rest))
    members = curves(60, 0.3, 11, n_replicates=1)
    rows = []
    for n in (len(members) // 2, len(members)):
        counted.clear()
        shared_ic50.least_rss([members[:n]])
        rows.append(sum(counted))
    assert rows[1] < 3.5 * rows[0]
