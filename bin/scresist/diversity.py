"""Diversity within a sample and distance between samples, from counts per type, at equal numbers of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

INDICES = ("shannon", "simpson", "hill_q0", "hill_q1", "hill_q2", "pielou", "clonality", "chao1")
# Least and largest value that an index can take; intervals are kept within.
BOUNDS = {
    "shannon": (0.0, np.inf),
    "simpson": (0.0, 1.0),
    "hill_q0": (1.0, np.inf),
    "hill_q1": (1.0, np.inf),
    "hill_q2": (1.0, np.inf),
    "pielou": (0.0, 1.0),
    "clonality": (0.0, 1.0),
    "chao1": (1.0, np.inf),
}
DISTANCES = ("jensen_shannon", "bray_curtis")
DRAWS = 200  # as in TRACE_CLONES
TAILS = (0.025, 0.975)


def indices(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The indices of INDICES for each row of counts.

    Parameters
    ----------
    counts
        draws x types, whole numbers.

    Returns
    -------
    index -> one value per draw, NaN for a draw without cells. Shannon H = -sum p ln p; Simpson 1 - sum p^2; Hill q0 = S types
    seen, q1 = e^H, q2 = 1 / sum p^2 (Hill 1973, Ecology 54:427); Pielou H / ln S and clonality 1 - Pielou, NaN for one type,
    where ln S is 0; Chao1 = S + F1 (F1 - 1) / (2 (F2 + 1)) with F1 and F2 the types seen once and twice (Chao 1984, Scand J
    Stat 11:265, bias-corrected).
    """
    n = np.atleast_2d(np.asarray(counts, dtype=float))
    total = n.sum(axis=1)
    filled = total > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        p = n / total[:, None]
        shannon = np.maximum(-np.where(n > 0, p * np.log(np.where(n > 0, p, 1)), 0).sum(axis=1), 0)
        concentration = (p**2).sum(axis=1)
        seen = (n > 0).sum(axis=1).astype(float)
        pielou = np.where(seen > 1, shannon / np.log(seen), np.nan)
        once, twice = (n == 1).sum(axis=1), (n == 2).sum(axis=1)
        values = (
            shannon, 1 - concentration, seen, np.exp(shannon), 1 / concentration, pielou, 1 - pielou,
            seen + once * (once - 1) / (2 * (twice + 1)),
        )  # fmt: skip
    return {name: np.where(filled, value, np.nan) for name, value in zip(INDICES, values, strict=True)}


def draw(counts: Sequence[int], depth: int, n_draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`n_draws` samples of `depth` cells from counts per type: without replacement, and with it (each draws x types)."""
    n = np.asarray(counts, dtype=np.int64)
    return rng.multivariate_hypergeometric(n, depth, size=n_draws), rng.multinomial(depth, n / n.sum(), size=n_draws)


def interval(value: float, drawn: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """95 % limits around `value` from draws with replacement, within [low, high]; NaN where most draws have no value.

    Draws with replacement lose rare types, so that their mean lies below the value they are drawn for; the limits are their
    2.5 and 97.5 % quantiles moved by that difference (bias-corrected bootstrap, Efron and Tibshirani 1993, chapter 10).
    """
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(known) <= len(drawn) / 2:
        return np.nan, np.nan
    shift = value - known.mean()
    found = np.quantile(known, TAILS) + shift
    # rounding aside, the value lies within
    return float(np.clip(min(found[0], value), low, high)), float(np.clip(max(found[1], value), low, high))


def rarefied(
    counts: Sequence[int], depth: int, rng: np.random.Generator, n_draws: int = DRAWS
) -> Mapping[str, tuple[float, float, float]]:
    """Each index at `depth` cells: mean over draws without replacement, and the 95 % interval (`interval`).

    All NaN when the counts hold fewer than `depth` cells, or `depth` is 0. Pielou and clonality need two types in more than half
    of the draws; where the others hold one, their mean would be that of another population.
    """
    if depth < 1 or int(np.sum(counts)) < depth:
        return dict.fromkeys(INDICES, (np.nan,) * 3)
    without, with_ = draw(counts, depth, n_draws, rng)
    plain, again = indices(without), indices(with_)
    made = {}
    for name in INDICES:
        known = plain[name][np.isfinite(plain[name])]
        if len(known) <= n_draws / 2:
            made[name] = (np.nan,) * 3
            continue
        value = float(known.mean())
        made[name] = (value, *interval(value, again[name], *BOUNDS[name]))
    return made


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance of shares: root of the divergence with logarithm to base 2, 0 to 1 (Endres and Schindelin 2003).

    Parameters
    ----------
    p, q
        draws x types, each row summing to 1.
    """

    def entropy(x: np.ndarray) -> np.ndarray:
        return -np.where(x > 0, x * np.log2(np.where(x > 0, x, 1)), 0).sum(axis=-1)

    return np.sqrt(np.clip(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0, 1))


def bray_curtis(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bray-Curtis dissimilarity of shares, sum |p - q| / 2, 0 to 1 (for counts of equal totals the same number)."""
    return np.abs(p - q).sum(axis=-1) / 2


def between(
    drawn_a: tuple[np.ndarray, np.ndarray], drawn_b: tuple[np.ndarray, np.ndarray], depth: int
) -> dict[str, tuple[float, float, float]]:
    """Distances of two samples from their draws (`draw`): value and 95 % interval of each of DISTANCES.

    The value is the mean over draws without replacement, so that pairs of small and large samples can be compared; draws of a
    small sample are at some distance even from draws of the same tissue.
    """
    made = {}
    for name, measure in zip(DISTANCES, (jensen_shannon, bray_curtis), strict=True):
        plain = measure(drawn_a[0] / depth, drawn_b[0] / depth)
        again = measure(drawn_a[1] / depth, drawn_b[1] / depth)
        value = float(plain.mean())
        made[name] = (value, *interval(value, again, 0.0, 1.0))
    return made
