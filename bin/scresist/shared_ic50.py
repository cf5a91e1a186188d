"""Least sum of squares of dose-response curves that share one IC50 and keep all other parameters to themselves.

    total(theta) = sum over curves of the least RSS of that curve with its log10 IC50 pinned at theta

is minimised in one dimension: a grid over the range of the curves' own IC50s, then a bracketing search around its lowest places
(Chandrupatla 1998, scipy). Each curve keeps its model (which plateaus are free) and falls; the work grows with the number of
curves, not with its powers. Many comparisons are searched at once, each for itself.

A pinned curve has at most two parameters that do not enter linearly. With the absolute IC50 (50 %) at theta

    y = 50 + span (f(x) - s),  f(x) = expit(u - ln(10) hill (x - theta)),  s = expit(u),  bottom = 50 - span s

so that bottom < 50 < top always holds; u and log hill are searched by damped Gauss-Newton steps with the span projected out
(variable projection, Golub and Pereyra 1973). With the relative IC50 at theta, u is 0 and both plateaus are projected out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import elementwise
from scipy.special import expit

LN10 = float(np.log(10))
HALF = 50.0
BOTTOM, TOP, LOG_IC50, HILL = range(4)
GRID_STEP = 0.05  # powers of ten between two places of the grid: half of what a curve of hill 10 falls over
MOST_OWN = 20  # of the curves' own IC50s that join the grid
VALLEYS = 5  # lowest places of the grid that are searched on
START_U = np.array([-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0])
START_HILLS = (np.array([0.15, 0.4]), np.array([0.8, 1.6]), np.array([3.0, 8.0]))  # one start of each of these
MOST_HILL, LEAST_LOG_HILL = 10.0, -6.0  # the limit of fits that may be printed; below e^-6 the curve is a straight line
MOST_U = 16.0  # beyond, the curve is its own limit (one plateau infinitely far away) to 1e-7
STEPS, MOST_DAMPING = 60, 1e8
COARSE, FINE = 1e-5, 1e-12  # relative gain of RSS at which a search ends: on the grid, and in its valleys
TINY = 1e-200
ROWS = 1000  # that are solved at once: their arrays stay in the cache of a processor
THETA_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Curve:
    """One curve of a comparison: its points (log10 dose, -inf for dose 0), its own fit (bottom, top, log10 of the relative IC50,
    hill), which of these four were free, its headline log10 IC50 and whether that is the absolute one."""

    log_dose: np.ndarray
    y: np.ndarray
    values: np.ndarray
    free: tuple[int, ...]
    log_ic50: float
    absolute: bool


class _Batch:
    """Curves of one model and one number of points: arrays curves x points."""

    def __init__(self, curves: Sequence[Curve]):
        first = curves[0]
        self.absolute = first.absolute
        self.fixed = {at: np.array([c.values[at] for c in curves]) for at in (BOTTOM, TOP) if at not in first.free}
        x = np.stack([c.log_dose for c in curves])
        self.zero = np.isneginf(x)
        self.x = np.where(self.zero, 0.0, x)
        self.y = np.stack([c.y for c in curves])
        self.h = np.log(np.array([abs(c.values[HILL]) for c in curves])).clip(LEAST_LOG_HILL)
        self.most_h = np.maximum(self.h, np.log(MOST_HILL))  # a step keeps its own hill
        self.u = np.zeros(len(curves))
        if self.absolute:
            bottom, top = (np.array([c.values[at] for c in curves]) for at in (BOTTOM, TOP))
            low, high = np.minimum(bottom, top), np.maximum(bottom, top)
            self.u = np.log((HALF - low) / (high - HALF)).clip(-MOST_U, MOST_U)
        self.free_u = self.absolute and len(self.fixed) < 2

    def rest(
        self, at: np.ndarray, theta: np.ndarray, u: np.ndarray, h: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals of the curves `at` pinned at theta, and their derivatives to u and log hill beside the linear parameters."""
        zero, y = self.zero[at], self.y[at]
        steep = (LN10 * np.exp(h))[:, None] * np.where(zero, 0.0, self.x[at] - theta[:, None])
        f = np.where(zero, 1.0, expit(u[:, None] - steep))
        rest, span, project = self._absolute(at, f, u, y) if self.absolute else self._relative(at, f, y)
        if not slopes:
            return rest, rest, rest
        bend = f * (1 - f) * span  # 0 at dose 0
        to_h = project(-bend * steep)
        if not self.free_u:
            return rest, np.zeros_like(rest), to_h
        s = expit(u)[:, None]
        to_u = bend - s * (1 - s) * span
        if TOP in self.fixed:
            to_u += span * s * (f - s)
        elif BOTTOM in self.fixed:
            to_u -= span * (1 - s) * (f - s)
        return rest, project(to_u), to_h

    def _absolute(self, at, f, u, y):
        s = expit(u)[:, None]
        g, t = f - s, y - HALF
        if len(self.fixed) == 2:
            span = (self.fixed[TOP] - self.fixed[BOTTOM])[at, None]
        elif TOP in self.fixed:
            span = (self.fixed[TOP][at, None] - HALF) / expit(-u)[:, None]
        elif BOTTOM in self.fixed:
            span = (HALF - self.fixed[BOTTOM][at, None]) / s
        else:
            span = _along(g, t)
            return span * g - t, span, lambda d: d - g * _along(g, d, signed=True)
        return span * g - t, span, lambda d: d

    def _relative(self, at, f, y):
        if len(self.fixed) == 2:
            bottom, span = self.fixed[BOTTOM][at, None], (self.fixed[TOP] - self.fixed[BOTTOM])[at, None]
            return bottom + span * f - y, span, lambda d: d
        if TOP in self.fixed:
            basis, target = f - 1, y - self.fixed[TOP][at, None]
        elif BOTTOM in self.fixed:
            basis, target = f, y - self.fixed[BOTTOM][at, None]
        else:
            basis, target = f - f.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
        span = _along(basis, target)

        def project(d: np.ndarray) -> np.ndarray:
            d = d if self.fixed else d - d.mean(axis=1, keepdims=True)
            return d - basis * _along(basis, d, signed=True)

        return span * basis - target, span, project

    def solve(
        self, at: np.ndarray, theta: np.ndarray, u: np.ndarray, h: np.ndarray, enough: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Least RSS of each row from its start, and where: damped Gauss-Newton steps in u and log hill within their limits."""
        u, h = u.copy(), h.copy()
        cost = _squares(self.rest(at, theta, u, h, slopes=False)[0])
        damping, going = np.full(len(at), 1e-2), np.arange(len(at))
        for _ in range(STEPS):
            rest, to_u, to_h = self.rest(at[going], theta[going], u[going], h[going], slopes=True)
            p, q = (to_u * rest).sum(axis=1), (to_h * rest).sum(axis=1)
            # at a limit, and the way down leads beyond it: the other parameter moves alone
            stuck_u = np.abs(u[going]) >= MOST_U
            stuck_u &= p * u[going] < 0
            stuck_h = ((h[going] >= self.most_h[at[going]]) & (q < 0)) | ((h[going] <= LEAST_LOG_HILL) & (q > 0))
            a, b, d = _squares(to_u), (to_u * to_h).sum(axis=1), _squares(to_h)
            p[stuck_u], q[stuck_h], b[stuck_u | stuck_h] = 0.0, 0.0, 0.0
            a, d = a * (1 + damping[going]) + TINY, d * (1 + damping[going]) + TINY
            bound = np.maximum(a * d - b * b, TINY)
            new_u = (u[going] - (d * p - b * q) / bound).clip(-MOST_U, MOST_U) if self.free_u else u[going]
            new_h = (h[going] - (a * q - b * p) / bound).clip(LEAST_LOG_HILL, self.most_h[at[going]])
            new = _squares(self.rest(at[going], theta[going], new_u, new_h, slopes=False)[0])
            better = new < cost[going]
            gain = np.where(better, cost[going] - new, 0.0)
            small = better & (gain <= enough * cost[going])
            chosen = going[better]
            u[chosen], h[chosen], cost[chosen] = new_u[better], new_h[better], new[better]
            damping[going] = np.where(better, damping[going] / 10, damping[going] * 5)
            going = going[~(small | (damping[going] > MOST_DAMPING))]
            if not len(going):
                break
        return cost, u, h

    def starts(self, at: np.ndarray, theta: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Where searches begin that know nothing: the parameters of the own fit, and the best of each part of a coarse grid."""
        made = [(self.u[at], self.h[at])]
        for hills in START_HILLS:
            best, chosen_u, chosen_h = np.full(len(at), np.inf), self.u[at].copy(), self.h[at].copy()
            for hill in hills:
                for start in START_U if self.free_u else (None,):
                    u = np.full(len(at), start) if self.free_u else self.u[at]
                    h = np.full(len(at), np.log(hill))
                    cost = _squares(self.rest(at, theta, u, h, slopes=False)[0])
                    better = cost < best
                    best[better], chosen_u[better], chosen_h[better] = cost[better], u[better], h[better]
            made.append((chosen_u, chosen_h))
        return made


def _squares(rest: np.ndarray) -> np.ndarray:
    return (rest * rest).sum(axis=1)


def _along(basis: np.ndarray, target: np.ndarray, signed: bool = False) -> np.ndarray:
    """The factor of `basis` that comes nearest to `target`, rows x 1; not below 0 unless `signed` (a curve falls)."""
    size = (basis * basis).sum(axis=1, keepdims=True)
    made = np.divide((basis * target).sum(axis=1, keepdims=True), size, out=np.zeros_like(size), where=size > TINY)
    return made if signed else np.maximum(made, 0.0)


class _Curves:
    """All curves, each in the batch of its model."""

    def __init__(self, curves: Sequence[Curve]):
        kinds: dict[tuple, list[int]] = {}
        for i, curve in enumerate(curves):
            kinds.setdefault((curve.absolute, curve.free, len(curve.y)), []).append(i)
        self.batches = [_Batch([curves[i] for i in members]) for members in kinds.values()]
        self.batch, self.place = np.zeros(len(curves), dtype=int), np.zeros(len(curves), dtype=int)
        for number, members in enumerate(kinds.values()):
            self.batch[members], self.place[members] = number, np.arange(len(members))

    def profile(
        self, curve: np.ndarray, theta: np.ndarray, starts: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Least RSS of the curves (by number) pinned at theta, and u and log hill there; rows are searched for themselves."""
        cost, best_u, best_h = (np.full(len(curve), value) for value in (np.inf, 0.0, 0.0))
        with np.errstate(all="ignore"):  # a search that runs away to infinity loses against the others
            for number, batch in enumerate(self.batches):
                mine = np.flatnonzero(self.batch[curve] == number)
                for first in range(0, len(mine), ROWS):
                    rows = mine[first : first + ROWS]
                    at, where = self.place[curve[rows]], theta[rows]
                    known = [(u[rows], h[rows]) for u, h in starts] or batch.starts(at, where)
                    begin_u, begin_h = (np.concatenate(part) for part in zip(*known, strict=True))
                    n = len(known)
                    made = batch.solve(np.tile(at, n), np.tile(where, n), begin_u, begin_h, FINE if starts else COARSE)
                    found = made[0].reshape(n, -1).argmin(axis=0) * len(rows) + np.arange(len(rows))
                    for kept, new in zip((cost, best_u, best_h), made, strict=True):
                        kept[rows] = new[found]
        return cost, best_u, best_h


def grid(own: np.ndarray) -> np.ndarray:
    """log10 IC50s to try: the range of the curves' own ones and a step beyond, and (a part of) these themselves."""
    own = np.sort(own)
    low, high = own[0] - GRID_STEP, own[-1] + GRID_STEP
    chosen = own[np.linspace(0, len(own) - 1, min(len(own), MOST_OWN)).round().astype(int)]
    return np.unique(np.concatenate([np.linspace(low, high, 1 + int(np.ceil((high - low) / GRID_STEP))), chosen]))


def least_rss(problems: Sequence[Sequence[Curve]]) -> np.ndarray:
    """Least sum of squares with one shared headline IC50 of each set of curves."""
    if not problems:
        return np.zeros(0)
    curves = _Curves([curve for members in problems for curve in members])
    ends = np.cumsum([0, *(len(members) for members in problems)])
    thetas = [grid(np.array([curve.log_ic50 for curve in members])) for members in problems]
    # rows: problem by problem, theta by theta, curve by curve
    rows = np.concatenate([np.tile(np.arange(ends[i], ends[i + 1]), len(places)) for i, places in enumerate(thetas)])
    counts = np.concatenate([np.full(len(places), ends[i + 1] - ends[i]) for i, places in enumerate(thetas)])
    cost, u, h = curves.profile(rows, np.repeat(np.concatenate(thetas), counts))
    begins = np.concatenate([[0], np.cumsum(counts)])
    totals = np.add.reduceat(cost, begins[:-1])

    # valleys: (problem, places of the row of totals); a lowest place at the end of a grid is kept as it is
    least, valleys, first = np.zeros(len(problems)), [], 0
    for i, places in enumerate(thetas):
        total = totals[first : first + len(places)]
        least[i] = total.min()
        inner = 1 + np.flatnonzero((total[1:-1] <= total[:-2]) & (total[1:-1] <= total[2:]))
        valleys += [(i, first + at) for at in inner[np.argsort(total[inner], kind="stable")][:VALLEYS]]
        first += len(places)
    if not valleys:
        return least
    everywhere = np.concatenate(thetas)
    problem, middle = (np.array(part) for part in zip(*valleys, strict=True))

    def total_of(theta: np.ndarray, valley: np.ndarray) -> np.ndarray:
        """Totals at one theta per valley; searches begin from the solutions at the three places that hold the valley."""
        theta, valley = np.atleast_1d(theta), np.atleast_1d(valley).astype(int)
        sizes = (ends[1:] - ends[:-1])[problem[valley]]
        members = np.concatenate([np.arange(ends[problem[v]], ends[problem[v] + 1]) for v in valley])
        starts = []
        for side in (-1, 0, 1):
            known = np.concatenate([np.arange(begins[middle[v] + side], begins[middle[v] + side + 1]) for v in valley])
            starts.append((u[known], h[known]))
        found, _, _ = curves.profile(members, np.repeat(theta, sizes), starts)
        return np.add.reduceat(found, np.concatenate([[0], np.cumsum(sizes)[:-1]]))

    bracket = tuple(everywhere[middle + side] for side in (-1, 0, 1))
    found = elementwise.find_minimum(
        total_of, bracket, args=(np.arange(len(valleys)),),
        tolerances={"xatol": THETA_TOLERANCE, "xrtol": 0.0, "fatol": 0.0, "frtol": 1e-12},
    )  # fmt: skip
    np.minimum.at(least, problem, np.where(np.isfinite(found.f_x), found.f_x, np.inf))
    return least
