"""Information flow of signalling pathways between phases: sums of probabilities, RankNet's scales, tests, drivers.

The flow of a pathway in a sample is the sum of its significant communication probabilities over pairs of cell types (CellChat's
information flow; Jin 2021, doi:10.1038/s41467-021-21246-9). It grows with the number of types, so samples are compared over the
types that every one of them could estimate. A type that is absent is never a zero: its share of the flow is not estimable.

`links` are rows of significant interactions: sample, source, target, pair, pathway, ligand, receptor, prob.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from scresist import communication, comparison, keys
from scresist.pair_tables import OTHER

ALL_PHASES = "phases"  # the comparison of all phases at once
LINK_COLUMNS = (keys.SAMPLE, "source", "target", "pair", "pathway", "ligand", "receptor", "prob", "pval")
GROUP_COLUMNS = (keys.SAMPLE, keys.PATIENT, keys.PHASE, "cell_type", "n_cells", "estimable")
INTERACTION = ("pathway", "pair", "ligand", "receptor", "source", "target")
FLOW_COLUMNS = (
    "contrast", keys.SAMPLE, keys.PATIENT, keys.PHASE, "pathway", "flow_all", "flow_common", "share_common", "n_pairs",
    "n_links", "status", "reason",
)  # fmt: skip
BEFORE_TEST = (
    "contrast", "pathway", "rank", "phase_max", "flow_a", "flow_b", "share_a", "share_b", "scaled_a", "scaled_b",
)  # fmt: skip
AFTER_TEST = (
    "label_p_value", "label_test", "label_p_min", "cell_effect", "cell_z", "cell_d", "cell_p_value", "cell_p_adjusted",
    "cell_evidence", "cell_effect_equal", "n_links_tested", "cellchat_pair_p", "cellchat_pair_test", "n_type_pairs", "reason",
)  # fmt: skip
RANKNET_COLUMNS = (*BEFORE_TEST, *comparison.TEST_COLUMNS[1:], *AFTER_TEST)
DRIVER_COLUMNS = (
    "contrast", "pathway", "level", "rank", "pair", "ligand", "receptor", "source", "target", "flow_a", "flow_b", "delta",
    "share_of_change", "ligand_a", "ligand_b", "receptor_a", "receptor_b", "status", "reason",
)  # fmt: skip
PHASE_COLUMNS = (
    keys.PHASE, "pathway", "level", "rank", "source", "target", "flow", "share", "scaled", "n_samples", "n_patients", "status",
    "reason",
)  # fmt: skip
ABSENT_COLUMNS = (
    "cell_type", keys.SAMPLE, keys.PATIENT, keys.PHASE, "n_cells", "absent_from_phase", "contrasts", "status", "reason",
)  # fmt: skip
LEVELS: dict[str, tuple[str, ...]] = {
    "pair": ("pair", "ligand", "receptor"),
    "sender": ("source",),
    "receiver": ("target",),
    "types": ("source", "target"),
    "interaction": INTERACTION[1:],
}
MIN_TYPES = 2  # a sample with fewer estimable types has no communication to compare
MIN_PAIR_TEST = 4  # pairs of types that CellChat's paired test needs (rankNet: more than three rows)
MIN_PHASES_RANK = 3  # phases with two patients or more for Kruskal-Wallis; two phases are a contrast
EXACT_ARRANGEMENTS = 20000  # of patients between the sides: enumerated up to here, drawn beyond
DRAWN_ARRANGEMENTS = 9999
ROUNDING = 1e-9  # relative: two arrangements that differ by less are equal, so that sums in another order count alike


# --- input


def check_links(frame: pd.DataFrame, name: str) -> list[str]:
    """What is wrong with a table of probabilities; [] when it can be used."""
    absent = [column for column in LINK_COLUMNS if column not in frame]
    if absent:
        return [f"{name}: no column {', '.join(absent)}; give <sample>.lr_prob.tsv.gz of SCORE_COMMUNICATION"]
    problems = []
    for column, high in (("prob", np.inf), ("pval", 1.0)):
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float)
        bad = np.flatnonzero(~((values >= 0) & (values <= high)))
        if len(bad):
            found = frame[column].iloc[bad[0]]
            problems.append(f"{name}: row {bad[0] + 2}: {column} is {found}, expected a number of at least 0")
    twice = frame.duplicated([keys.SAMPLE, "source", "target", "pair"])
    if twice.any():
        row = frame[twice].iloc[0]
        problems.append(f"{name}: {row['pair']} from {row['source']} to {row['target']} stands twice; give the table as written")
    return problems


def check_groups(frame: pd.DataFrame, name: str) -> list[str]:
    """What is wrong with a table of groups; [] when it can be used."""
    absent = [column for column in GROUP_COLUMNS if column not in frame]
    if absent:
        return [f"{name}: no column {', '.join(absent)}; give <sample>.comm_groups.tsv of SCORE_COMMUNICATION"]
    problems = []
    twice = frame.duplicated([keys.SAMPLE, "cell_type"])
    if twice.any():
        problems.append(f"{name}: {frame.loc[twice, 'cell_type'].iloc[0]} stands twice; give the table as written")
    odd = sorted(set(frame["estimable"].astype(str)) - {"true", "false"})
    if odd:
        problems.append(f"{name}: estimable is {', '.join(odd)[:100]}, expected true or false")
    return problems


def unlisted(groups: pd.DataFrame) -> list[str]:
    """Samples that do not list every type of the cohort: a type that a file does not know cannot be told from an absent one."""
    everyone = set(groups["cell_type"])
    gaps = {sample: sorted(everyone - set(part["cell_type"])) for sample, part in groups.groupby(keys.SAMPLE, sort=True)}
    return [f"{sample}: no row for {', '.join(lack)[:200]} in its comm_groups.tsv" for sample, lack in gaps.items() if lack]


def estimable_types(groups: pd.DataFrame) -> pd.DataFrame:
    """Boolean frame types x samples (both sorted): whether the type could be estimated in the sample.

    Parameters
    ----------
    groups
        columns GROUP_COLUMNS; every type in every sample (`unlisted`).
    """
    known = groups.assign(known=groups["estimable"].astype(str) == "true")
    wide = known.pivot(index="cell_type", columns=keys.SAMPLE, values="known")
    return wide.astype(bool).sort_index().sort_index(axis=1)


def significant(prob: pd.DataFrame, cut: float) -> pd.DataFrame:
    """The rows with p up to `cut` and a probability above 0: the links that flows are sums of."""
    kept = (prob["pval"].to_numpy(dtype=float) <= cut) & (prob["prob"].to_numpy(dtype=float) > 0)
    return prob.loc[kept, [c for c in LINK_COLUMNS if c != "pval"]].reset_index(drop=True)


# --- comparisons


@dataclass(frozen=True)
class Sides:
    """Who is compared with whom: names of the sides, their samples, and the weight of each sample in its side.

    A side's value is the mean over its patients; samples of one patient on one side count by their cells.
    """

    contrast: str
    names: tuple[str, ...]
    samples: tuple[tuple[str, ...], ...]
    weights: Mapping[str, float]

    @property
    def all_samples(self) -> list[str]:
        return sorted(sample for side in self.samples for sample in side)

    @property
    def side_of(self) -> dict[str, int]:
        return {sample: i for i, side in enumerate(self.samples) for sample in side}


def sides_of(
    contrast: str,
    names: Sequence[str],
    samples: Sequence[Sequence[str]],
    cells: pd.Series,
    patient_of: Mapping[str, str],
    paired: bool = False,
) -> Sides:
    """The sides of a comparison with the weights of their samples.

    Parameters
    ----------
    samples
        usable samples of each side.
    cells
        by sample: cells behind its values.
    paired
        keep only patients that stand on every side.
    """
    chosen = [sorted(side) for side in samples]
    if paired:
        both = set.intersection(*({patient_of[s] for s in side} for side in chosen)) if chosen else set()
        chosen = [[s for s in side if patient_of[s] in both] for side in chosen]
    weights: dict[str, float] = {}
    for side in chosen:
        n_patients = len({patient_of[s] for s in side})
        for sample in side:
            own = sum(float(cells[s]) for s in side if patient_of[s] == patient_of[sample])
            weights[sample] = float(cells[sample]) / own / n_patients if own else 0.0
    return Sides(contrast, tuple(names), tuple(tuple(side) for side in chosen), weights)


def common_types(estimable: pd.DataFrame, samples: Sequence[str]) -> list[str]:
    """Types that every one of these samples could estimate."""
    return estimable.index[estimable[list(samples)].all(axis=1)].tolist() if len(samples) else []


def within(links: pd.DataFrame, types: Sequence[str]) -> np.ndarray:
    """Which links have their source and their target among `types`."""
    return (links["source"].isin(types) & links["target"].isin(types)).to_numpy()


def sample_flows(links: pd.DataFrame, samples: Sequence[str], types: Sequence[str], min_pairs: int) -> pd.DataFrame:
    """Flow of every pathway in every sample: over all its types, and over the types common to all samples compared.

    Parameters
    ----------
    links
        significant interactions; those of other samples are left out.
    types
        types that every sample could estimate.
    min_pairs
        pairs of types (source, target) that a comparison needs.

    Returns
    -------
    Frame sample, pathway, flow_all, flow_common, share_common, n_pairs (ligand-receptor pairs), n_links (with their types),
    status, reason. A pathway without a link in any of the samples has no row. flow_common is missing (`not_estimable`) where too
    few pairs are common, or where every link of the pathway ends at a type that is not common; else a sample without links has
    0: its types were looked at and none signals.
    """
    mine = links[links[keys.SAMPLE].isin(list(samples))]
    pathways = sorted(set(mine["pathway"].astype(str)))
    index = pd.MultiIndex.from_product([sorted(samples), pathways], names=[keys.SAMPLE, "pathway"])
    inside = mine[within(mine, types)]

    def total(part: pd.DataFrame) -> pd.Series:
        text = part.astype({keys.SAMPLE: str, "pathway": str})
        return text.groupby([keys.SAMPLE, "pathway"], sort=True)["prob"].sum().reindex(index, fill_value=0.0)

    out = pd.DataFrame({"flow_all": total(mine), "flow_common": total(inside)}, index=index)
    text = mine.astype({keys.SAMPLE: str, "pathway": str})
    by = text.groupby([keys.SAMPLE, "pathway"], sort=True)["pair"]
    out["n_pairs"] = by.nunique().reindex(index, fill_value=0)
    out["n_links"] = by.size().reindex(index, fill_value=0)
    out = out.reset_index()
    n_pairs = len(types) ** 2
    enough = n_pairs >= min_pairs
    known = out["pathway"].isin(set(inside["pathway"].astype(str))) & enough
    out.loc[~known, "flow_common"] = np.nan
    out["share_common"] = np.where(out["flow_all"] > 0, out["flow_common"] / out["flow_all"].where(out["flow_all"] > 0), np.nan)
    few = f"{n_pairs} pairs of types in common, {min_pairs} needed"
    out["status"] = np.where(known, keys.OK, keys.NOT_ESTIMABLE)
    out["reason"] = np.where(known, "", few if not enough else "every link ends at a type that a compared sample lacks")
    return out


def contributions(links: pd.DataFrame, sides: Sides, types: Sequence[str]) -> pd.DataFrame:
    """Every interaction between common types with its weighted mean per side (columns 0, 1, ... after INTERACTION), sorted."""
    side_of = sides.side_of
    mine = links[links[keys.SAMPLE].isin(list(side_of))]
    mine = mine[within(mine, types)]
    sample = mine[keys.SAMPLE].astype(str)
    part = mine[list(INTERACTION)].astype(str)
    part["side"] = sample.map(side_of).to_numpy(dtype=int)
    part["value"] = mine["prob"].to_numpy(dtype=float) * sample.map(dict(sides.weights)).to_numpy(dtype=float)
    columns = list(range(len(sides.names)))
    if part.empty:
        return pd.DataFrame(columns=[*INTERACTION, *columns])
    wide = part.groupby([*INTERACTION, "side"], sort=True)["value"].sum().unstack("side", fill_value=0.0)
    return wide.reindex(columns=columns, fill_value=0.0).reset_index().rename_axis(columns=None)


def display_scale(flows: np.ndarray) -> np.ndarray:
    """RankNet's scale of flows, any shape: -1/ln F; where F >= 1, 1.1 to 1.5 times the largest of the others, by F.

    NaN stays NaN; F = 0 gives 0. Where every flow is 1 or more, the largest of the others counts as 1 (CellChat's own code then
    multiplies a negative number).
    """
    values = np.asarray(flows, dtype=float)
    out = np.full(values.shape, np.nan)
    small = np.isfinite(values) & (values < 1)
    zero = small & (values <= 0)
    out[zero] = 0.0
    inner = small & ~zero
    out[inner] = -1.0 / np.log(values[inner])
    large = np.isfinite(values) & (values >= 1)
    if large.any():
        top = out[inner].max() if inner.any() else 1.0
        places = np.argsort(np.argsort(values[large], kind="stable"), kind="stable")
        out[large] = np.linspace(1.1 * top, 1.5 * top, int(large.sum()))[places]
    return out


def side_shares(flows: np.ndarray) -> np.ndarray:
    """Rows of flows (pathways x sides) divided by their sums; NaN for a row without flow."""
    values = np.asarray(flows, dtype=float)
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.full(values.shape, np.nan), where=total > 0)


# --- tests


def pair_test(values: np.ndarray) -> tuple[float, str, int]:
    """CellChat's test of one pathway over pairs of types: p, name, pairs of types used.

    Paired Wilcoxon of two sides as R's `wilcox.test(paired = TRUE)` (exact below 50 pairs without ties and zeros, else normal
    with continuity correction), Friedman over more; over the pairs that are not zero on every side. Pairs of types share cells,
    so this is no test between patients. NaN below four such pairs, where CellChat prints 0.

    Parameters
    ----------
    values
        pairs of types x sides.
    """
    values = np.asarray(values, dtype=float)
    used = values[(values != 0).any(axis=1)]
    name = "wilcoxon_paired" if values.shape[1] == 2 else "friedman"
    if len(used) < MIN_PAIR_TEST:
        return np.nan, name, len(used)
    if values.shape[1] > 2:
        constant = (used == used[:, :1]).all()
        return (np.nan if constant else float(stats.friedmanchisquare(*used.T).pvalue)), name, len(used)
    d = used[:, 0] - used[:, 1]
    kept = d[d != 0]
    if not len(kept):
        return np.nan, name, len(used)
    exact = len(kept) == len(d) and len(d) < comparison.EXACT_BELOW and len(np.unique(np.abs(d))) == len(d)
    found = stats.wilcoxon(kept, method="exact" if exact else "approx", correction=not exact)
    return float(found.pvalue), name, len(used)


def label_test(a: np.ndarray, b: np.ndarray, paired: bool, seed: int) -> tuple[float, str, float]:
    """Permutation of patients between two sides (of signs within pairs): two-sided p of the difference of means, name, least p.

    All arrangements are counted up to EXACT_ARRANGEMENTS, the observed one included; beyond, p = (b + 1) / (B + 1) over drawn
    ones. NaN below two patients a side and where all values are equal.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    name = "permutation_signs" if paired else "permutation_labels"
    if min(len(a), len(b)) < comparison.LIMITED_FROM or (paired and len(a) != len(b)):
        return np.nan, name, np.nan
    both = np.concatenate([a, b])
    slack = ROUNDING * max(float(np.abs(both).max()), np.finfo(float).tiny)
    if np.ptp(both) <= slack or (paired and np.all(np.abs(a - b) <= slack)):
        return np.nan, name, np.nan
    rng = np.random.default_rng(seed)
    if paired:
        d = a - b
        n_all = 2 ** len(d)
        exact = n_all <= EXACT_ARRANGEMENTS
        if exact:
            signs = 1 - 2 * ((np.arange(n_all)[:, None] >> np.arange(len(d))) & 1)
        else:
            signs = rng.choice([-1, 1], (DRAWN_ARRANGEMENTS, len(d)))
        null, observed, least = (signs * d).mean(axis=1), d.mean(), 2 / n_all
    else:
        n_all = comb(len(both), len(a))
        exact = n_all <= EXACT_ARRANGEMENTS
        if exact:
            chosen = np.array(list(combinations(range(len(both)), len(a))))
        else:
            chosen = np.argsort(rng.random((DRAWN_ARRANGEMENTS, len(both))), axis=1)[:, : len(a)]
        sums = both[chosen].sum(axis=1)
        null, observed = sums / len(a) - (both.sum() - sums) / len(b), a.mean() - b.mean()
        least = (2 if len(a) == len(b) else 1) / n_all
    hits = int((np.abs(null) >= abs(observed) - slack).sum())
    p = hits / n_all if exact else (hits + 1) / (DRAWN_ARRANGEMENTS + 1)
    return float(p), f"{name}_{'exact' if exact else 'drawn'}", float(least if exact else 1 / (DRAWN_ARRANGEMENTS + 1))


def patient_test(
    values: pd.Series, cells: pd.Series, contrast: comparison.Contrast, patient_of: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """A row of TEST_COLUMNS between patients with `reason`, and the permutation of patients beside it (label_*)."""
    row = comparison.compare(values, cells, contrast, patient_of)
    a = comparison.by_patient(values, cells, contrast.samples_a, patient_of)
    b = comparison.by_patient(values, cells, contrast.samples_b, patient_of)
    if contrast.paired:
        pairs = a.index.intersection(b.index)
        a, b = a.loc[pairs], b.loc[pairs]
    p, name, least = np.nan, "", np.nan
    if row["status"] not in (keys.NO_REPLICATES, keys.NOT_ESTIMABLE):
        p, name, least = label_test(a["value"].to_numpy(), b["value"].to_numpy(), contrast.paired, seed)
    row.update(label_p_value=p, label_test=name, label_p_min=least, reason="")
    n_a, n_b = row["n_patients_a"], row["n_patients_b"]
    found = f"{n_a} against {n_b} patients with values"
    if row["status"] == keys.NO_REPLICATES:
        row["reason"] = contrast.reason if not contrast.testable and contrast.reason else f"{found}, 2 a side needed"
    elif row["status"] == keys.NOT_ESTIMABLE:
        row["reason"] = "all values are equal" if min(n_a, n_b) else f"{found}, 1 a side needed"
    return row


def phase_test(
    values: pd.Series, cells: pd.Series, sides: Sides, patient_of: Mapping[str, str]
) -> dict[str, Any]:
    """Kruskal-Wallis over phases with one value per patient: a row of TEST_COLUMNS with `reason`; effect is epsilon squared.

    Phases with one patient are left out. A patient with several phases stands in each, which the test does not know: `warning`.
    """
    row: dict[str, Any] = dict.fromkeys(comparison.TEST_COLUMNS, np.nan)
    row.update(contrast=sides.contrast, unit=comparison.UNIT_PATIENT, effect_name="epsilon_squared", test="kruskal_wallis")
    row.update(adjust_method="", reason="", label_p_value=np.nan, label_test="", label_p_min=np.nan)
    found = {
        name: comparison.by_patient(values, cells, samples, patient_of)
        for name, samples in zip(sides.names, sides.samples, strict=True)
    }
    found = {name: frame for name, frame in found.items() if len(frame)}
    usable = {name: frame for name, frame in found.items() if len(frame) >= comparison.LIMITED_FROM}
    sizes = sorted((len(frame) for frame in found.values()), reverse=True)
    second = sizes[1] if len(sizes) > 1 else 0
    row["evidence"] = comparison.evidence(second, second)
    if len(found) < 2:
        row["status"], row["reason"] = keys.NOT_ESTIMABLE, f"{len(found)} phases with values, 2 needed"
        return row
    if len(usable) < MIN_PHASES_RANK:
        row["status"] = keys.NO_REPLICATES
        row["reason"] = f"{len(usable)} phases with 2 patients or more, {MIN_PHASES_RANK} needed for a test over all"
        return row
    row["statistic"], row["p_value"], row["effect"] = comparison.kruskal([f["value"].to_numpy() for f in usable.values()])
    if not np.isfinite(row["p_value"]):
        row["status"], row["reason"] = keys.NOT_ESTIMABLE, "all values are equal"
        return row
    patients = [p for frame in usable.values() for p in frame.index]
    notes = []
    alone = [name for name in found if name not in usable]
    if alone:
        notes.append(f"one patient only, left out of the test: {', '.join(alone)}")
    if len(patients) != len(set(patients)):
        notes.append("patients repeat over phases; the test takes them as independent")
    row["status"], row["reason"] = (keys.WARNING, "; ".join(notes)) if notes else (keys.OK, "")
    return row


# --- permutation of cells


@dataclass(frozen=True)
class CellTest:
    """Flows over a fixed set of links: `observed` sides x pathways, `null` permutations x sides x pathways, `equal` as observed.

    `equal`: mean over draws of as many cells of each type from every sample. `n_links`: links of each pathway.
    """

    pathways: tuple[str, ...]
    observed: np.ndarray
    null: np.ndarray
    equal: np.ndarray
    n_links: np.ndarray


def cell_permutation(
    values: sparse.spmatrix,
    types: np.ndarray,
    samples: np.ndarray,
    strata: np.ndarray,
    weights: np.ndarray,
    pairs: communication.Pairs,
    links: pd.DataFrame,
    type_names: Sequence[str],
    n_perms: int,
    seed: int,
    threads: int = 1,
    n_draws: int = 0,
    kh: float = communication.KH,
    n: float = communication.HILL,
    cofactors: bool = True,
) -> CellTest:
    """Flows of sides when cells of one type change places between samples, over a set of links that stays the same.

    Each sample keeps its number of cells of each type. Values must be on one scale for all samples: divided by sample, a cell
    that moves would take another's maximum along, and two samples of unlike maxima would differ in every pathway.

    Parameters
    ----------
    values
        cells x `pairs.genes`, not negative, scaled once over all cells compared.
    types, samples
        int codes of each cell.
    strata
        int code of each cell: cells move only among cells of their type and stratum (patients of a paired contrast).
    weights
        sides x samples: the share of each sample in the value of each side.
    links
        the set of links: pair, source, target, each once; names that `pairs` and `type_names` know.
    seed
        permutation b draws from its own generator (seed, b): threads change nothing.
    n_draws
        draws of equal cells for the sensitivity run; 0 for none.
    """
    at_pair = {name: i for i, name in enumerate(pairs.table["pair"])}
    at_type = {name: i for i, name in enumerate(type_names)}
    chosen = np.array([at_pair[name] for name in links["pair"]], dtype=np.int64)
    active, pair_of = np.unique(chosen, return_inverse=True)
    source = np.array([at_type[name] for name in links["source"]], dtype=np.int64)
    target = np.array([at_type[name] for name in links["target"]], dtype=np.int64)
    part = pairs.take(active)
    pathways, pathway_of = np.unique(part.table["pathway"].to_numpy(dtype=str)[pair_of], return_inverse=True)
    used = np.zeros(len(pairs.genes), dtype=bool)
    for index in (part.ligand, part.receptor, part.agonist, part.antagonist, part.co_a, part.co_i):
        used[index[index >= 0]] = True
    genes = np.flatnonzero(used)
    ranked = communication.rank(sparse.csc_matrix(values)[:, genes])
    types, samples = np.asarray(types, dtype=np.int64), np.asarray(samples, dtype=np.int64)
    n_types, n_samples = len(type_names), weights.shape[1]
    block = types * (int(np.max(strata, initial=0)) + 1) + np.asarray(strata, dtype=np.int64)
    order = np.argsort(block, kind="stable")
    ends = np.flatnonzero(np.diff(block[order], append=-1)) + 1
    blocks = np.split(order, ends[:-1]) if len(order) else []
    group = samples * n_types + types
    sizes = np.bincount(group, minlength=n_samples * n_types).reshape(n_samples, n_types)
    least = sizes.min(axis=0)

    def flows(codes: np.ndarray) -> np.ndarray:
        averages = communication.trimean_by_group(ranked, codes, n_samples * n_types)
        full = np.zeros((n_types, len(pairs.genes)))
        out = np.zeros((n_samples, len(pathways)))
        for i in range(n_samples):
            full[:, genes] = averages[i * n_types : (i + 1) * n_types]
            prob = communication.probabilities(full, part, kh, n, cofactors)[pair_of, source, target]
            out[i] = np.bincount(pathway_of, prob, minlength=len(pathways))
        return weights @ out

    def shuffled(b: int) -> np.ndarray:
        rng = np.random.default_rng([seed, b])
        moved = samples.copy()
        for cells in blocks:
            moved[cells] = samples[cells][rng.permutation(len(cells))]
        return flows(moved * n_types + types)

    def equal(b: int) -> np.ndarray:
        rng = np.random.default_rng([seed, n_perms + b])
        codes = np.full(len(group), -1, dtype=np.int64)
        place = np.argsort(group + rng.random(len(group)), kind="stable")  # cells of a group side by side, in random order
        first = np.concatenate([[0], np.cumsum(sizes.ravel())[:-1]])
        kept = place[np.arange(len(group)) - first[group[place]] < least[types[place]]]
        codes[kept] = group[kept]
        return flows(codes)

    observed = flows(group)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        null = list(pool.map(shuffled, range(n_perms)))
        draws = list(pool.map(equal, range(n_draws)))
    return CellTest(
        tuple(pathways.tolist()),
        observed,
        np.array(null).reshape(n_perms, *observed.shape),
        np.mean(draws, axis=0) if draws else np.full(observed.shape, np.nan),
        np.bincount(pathway_of, minlength=len(pathways)),
    )


def cell_table(found: CellTest) -> pd.DataFrame:
    """Effect, z and p of a permutation of cells by pathway (index): columns cell_* and n_links_tested.

    Two sides: side A minus side B, two-sided about the mean of all arrangements (the observed one included: p stays exact where
    unequal numbers of cells shift the null). More sides: largest minus smallest flow, one-sided. p = (b + 1) / (B + 1);
    z = (observed - mean) / sd of the permutations, missing where they are all alike; p is missing where the observed flow is
    like them.

    d = (observed - mean) / (sd + s0), s0 the median sd of the named pathways: the moderated score of SAM (Tusher 2001,
    doi:10.1073/pnas.091062498). A pathway of one rare link is 0 in almost every permutation, and its z grows without bound
    although hardly any signal changed; s0 keeps it from leading.
    """

    def statistic(values: np.ndarray) -> np.ndarray:  # ... x sides x pathways
        if values.shape[-2] == 2:
            return values[..., 0, :] - values[..., 1, :]
        return values.max(axis=-2) - values.min(axis=-2)

    observed, null = statistic(found.observed), statistic(found.null)
    n_perms, shape = len(null), observed.shape
    z, d, p = (np.full(shape, np.nan) for _ in range(3))
    if n_perms > 1:
        spread = null.std(axis=0, ddof=1)
        size = np.maximum(np.abs(found.observed).max(axis=0), np.abs(null).max(axis=0))
        slack = ROUNDING * np.maximum(size, np.finfo(float).tiny)
        varies = spread > slack
        shift = observed - null.mean(axis=0)
        moves = varies | (np.abs(shift) > slack)
        centre = (null.sum(axis=0) + observed) / (n_perms + 1)
        away, far = null - centre, observed - centre
        if found.observed.shape[0] == 2:
            away, far = np.abs(away), np.abs(far)
        hits = (away >= far - ROUNDING * size).sum(axis=0)
        p = np.where(moves, (hits + 1) / (n_perms + 1), np.nan)
        z = np.divide(shift, spread, out=z, where=varies)
        base = varies & named(found.pathways) if (varies & named(found.pathways)).any() else varies
        d = np.divide(shift, spread + (np.median(spread[base]) if base.any() else 0.0), out=d, where=moves & base.any())
    return pd.DataFrame(
        {
            "cell_effect": observed, "cell_z": z, "cell_d": d, "cell_p_value": p, "cell_effect_equal": statistic(found.equal),
            "n_links_tested": found.n_links,
        },
        index=pd.Index(found.pathways, name="pathway"),
    )  # fmt: skip


def named(pathways: Sequence[str]) -> np.ndarray:
    """Which pathways the pair table names; the others are single ligands, mostly with receptors outside their family."""
    return np.array([not name.startswith(OTHER) for name in pathways], dtype=bool)


def adjusted(p: pd.Series, pathways: Sequence[str]) -> np.ndarray:
    """Benjamini-Hochberg within one comparison: over the named pathways, and apart from them over the others."""
    out, first = np.full(len(p), np.nan), named(pathways)
    for part in (first, ~first):
        out[part] = comparison.adjust(p.to_numpy(dtype=float)[part])
    return out


def link_set(links: pd.DataFrame, samples: Sequence[str], types: Sequence[str]) -> pd.DataFrame:
    """The union over samples of the significant links between common types: pair, source, target, each once, sorted."""
    mine = links[links[keys.SAMPLE].isin(list(samples))]
    mine = mine.loc[within(mine, types), ["pair", "source", "target"]].astype(str)
    return mine.drop_duplicates().sort_values(["pair", "source", "target"], ignore_index=True)


# --- tables


def flow_rows(
    flows: pd.DataFrame, contrast: str, patient_of: Mapping[str, str], phase_of: Mapping[str, str]
) -> pd.DataFrame:
    """flow.tsv of one comparison from `sample_flows`."""
    out = flows.assign(contrast=contrast)
    out[keys.PATIENT] = [patient_of[s] for s in out[keys.SAMPLE]]
    out[keys.PHASE] = [phase_of[s] for s in out[keys.SAMPLE]]
    return out[list(FLOW_COLUMNS)]


def side_flows(flows: pd.DataFrame, sides: Sides) -> pd.DataFrame:
    """flow_common of each side (columns 0, 1, ...) by pathway (sorted index): weighted sums over its samples."""
    wide = flows.pivot(index="pathway", columns=keys.SAMPLE, values="flow_common").sort_index()
    out = {
        i: sum((wide[s] * sides.weights[s] for s in side), pd.Series(0.0, index=wide.index)) if side else np.nan
        for i, side in enumerate(sides.samples)
    }
    return pd.DataFrame(out, index=wide.index)


def ranked(rows: pd.DataFrame) -> pd.Series:
    """Rank of each row of one comparison: named pathways first, then by |cell_d|, |cell_effect|, |effect|, name.

    p cannot rank: with a few hundred permutations several pathways share the smallest. Missing where not estimable.
    """
    order = pd.DataFrame(
        {
            "other": ~named(rows["pathway"].tolist()), "d": -rows["cell_d"].abs().fillna(-1),
            "cell": -rows["cell_effect"].abs().fillna(-1), "effect": -rows["effect"].abs().fillna(-1),
            "pathway": rows["pathway"],
        }
    )  # fmt: skip
    order = order[rows["cell_effect"].notna() | rows["effect"].notna()]
    order = order.sort_values(list(order), kind="stable")
    return pd.Series(np.arange(1, len(order) + 1), index=order.index, dtype="Int64").reindex(rows.index)


def driver_rows(
    parts: pd.DataFrame, contrast: str, most: Mapping[str, int], most_overall: int, most_other: int
) -> pd.DataFrame:
    """Which pairs, senders, receivers, pairs of types and single interactions carry the change of each pathway.

    Parameters
    ----------
    parts
        `contributions` of two sides.
    most
        level -> rows kept per pathway, the largest |delta| first.
    most_overall
        interactions kept beyond these: the largest of the whole comparison.
    most_other
        rows kept at most per level of a pathway without a name.

    Returns
    -------
    Rows of DRIVER_COLUMNS without expression. `share_of_change` = delta / sum of |delta| over the pathway at that level.
    """
    frames = []
    for level, names in LEVELS.items():
        columns = list(dict.fromkeys(["pathway", *names]))
        made = parts.groupby(columns, sort=True)[[0, 1]].sum().reset_index()
        made = made.rename(columns={0: "flow_a", 1: "flow_b"})
        made["delta"] = made["flow_a"] - made["flow_b"]
        size = made["delta"].abs()
        total = size.groupby(made["pathway"]).transform("sum")
        made["share_of_change"] = (made["delta"] / total).where(total > 0)
        made = made.assign(level=level, size=size).sort_values(
            ["pathway", "size", *names], ascending=[True, False, *[True] * len(names)], kind="stable"
        )
        made["rank"] = made.groupby("pathway", sort=False).cumcount() + 1
        own = named(made["pathway"].tolist())
        kept = made["rank"] <= np.where(own, most[level], min(most_other, most[level]))
        if level == "interaction":
            kept |= made["size"].rank(ascending=False, method="first") <= most_overall
        frames.append(made[kept & (made["size"] > 0)])
    out = stacked(frames, DRIVER_COLUMNS)
    return out.assign(contrast=contrast, status=keys.OK, reason="")


def absent_driver_rows(links: pd.DataFrame, sides: Sides, types: Sequence[str], why: Mapping[str, str]) -> pd.DataFrame:
    """Senders and receivers of a pathway that a compared sample lacks: rows without values, `not_estimable`, with the reason."""
    mine = links[links[keys.SAMPLE].isin(list(sides.side_of))]
    frames = []
    for level, column in (("sender", "source"), ("receiver", "target")):
        gone = mine.loc[~mine[column].isin(list(types)), ["pathway", column]].astype(str).drop_duplicates()
        gone = gone.sort_values(["pathway", column]).assign(level=level, contrast=sides.contrast, status=keys.NOT_ESTIMABLE)
        gone["reason"] = [why.get(name, "") for name in gone[column]]
        frames.append(gone.reindex(columns=list(DRIVER_COLUMNS)))
    return stacked(frames, DRIVER_COLUMNS)


def mean_expression(
    values: sparse.spmatrix, types: np.ndarray, samples: np.ndarray, n_types: int, n_samples: int
) -> np.ndarray:
    """Mean of each gene in each sample and type: samples x types x genes, NaN without cells. Codes below 0 are left out."""
    kept = np.flatnonzero((types >= 0) & (samples >= 0))
    group = samples[kept] * n_types + types[kept]
    sums = sparse.csr_matrix((np.ones(len(kept)), (group, kept)), shape=(n_samples * n_types, values.shape[0]))
    total = np.asarray((sums @ sparse.csr_matrix(values, dtype=np.float64)).todense())
    sizes = np.bincount(group, minlength=n_samples * n_types).astype(float)
    return (total / np.where(sizes > 0, sizes, np.nan)[:, None]).reshape(n_samples, n_types, -1)


def complex_expression(means: np.ndarray, index: np.ndarray) -> float:
    """Expression of a ligand or receptor from its subunits' means: the least of them, which limits the complex."""
    genes = index[index >= 0]
    return float(means[genes].min()) if len(genes) else np.nan


def stacked(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Frames one below the other, also where some are empty or lack a column."""
    return pd.DataFrame([row for frame in frames for row in frame.to_dict("records")], columns=list(columns))


def phase_matrices(
    links: pd.DataFrame, sides: Sides, estimable: pd.DataFrame, cells: pd.Series, patient_of: Mapping[str, str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Who sends what to whom in each phase: mean over the patients in whom both types could be estimated.

    Parameters
    ----------
    sides
        phases and their samples.
    estimable
        types x samples.
    cells
        by sample; samples of one patient count by their cells.

    Returns
    -------
    pathways
        the named ones with a link, sorted.
    flow
        phases x pathways x types x types (source, target); NaN where no sample of the phase has both types.
    n_patients
        phases x types x types: patients behind it.
    """
    mine = links[named(links["pathway"].tolist())]
    pathways = sorted(set(mine["pathway"].astype(str)))
    at = {name: i for i, name in enumerate(pathways)}
    type_at = {name: i for i, name in enumerate(estimable.index)}
    n = len(type_at)
    flow = np.full((len(sides.names), len(pathways), n, n), np.nan)
    n_patients = np.zeros((len(sides.names), n, n), dtype=int)
    by_sample = {str(name): part for name, part in mine.groupby(mine[keys.SAMPLE].astype(str), sort=True)}
    for k, samples in enumerate(sides.samples):
        sums, counts = np.zeros((len(pathways), n, n)), np.zeros((n, n), dtype=int)
        for patient in sorted({patient_of[s] for s in samples}):
            whole, weight = np.zeros_like(sums), np.zeros((n, n))
            for sample in (s for s in samples if patient_of[s] == patient):
                known = estimable[sample].to_numpy(dtype=bool)
                weight += float(cells[sample]) * np.outer(known, known)
                part = by_sample.get(sample)
                if part is not None:
                    places = (("pathway", at), ("source", type_at), ("target", type_at))
                    where = tuple(part[column].astype(str).map(place).to_numpy() for column, place in places)
                    np.add.at(whole, where, float(cells[sample]) * part["prob"].to_numpy(dtype=float))
            sums += np.divide(whole, weight, out=np.zeros_like(whole), where=weight > 0)
            counts += weight > 0
        flow[k] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        n_patients[k] = counts
    return pathways, flow, n_patients


def phase_rows(
    flows: pd.DataFrame,
    sides: Sides,
    types: Sequence[str],
    matrices: tuple[list[str], np.ndarray, np.ndarray],
    absent: Mapping[str, Mapping[str, str]],
    headline: Sequence[str],
    n_patients: Mapping[str, int],
    most: int,
) -> pd.DataFrame:
    """comm_phase.tsv: flow of every pathway by phase, its leading senders and receivers, and matrices of the headline pathways.

    Parameters
    ----------
    flows
        `side_flows` over the phases: of the types in common.
    types
        all types of the cohort.
    matrices
        `phase_matrices`: every pair of types that a phase could estimate.
    absent
        type -> phase -> why it could not be estimated there.
    headline
        pathways whose matrices sender x receiver are written, pairs of types that are not estimable included.
    n_patients
        patients of each phase.
    most
        senders and receivers per pathway and phase.
    """
    names = list(sides.names)
    n_samples = dict(zip(names, map(len, sides.samples), strict=True))
    share, scaled = side_shares(flows.to_numpy()), display_scale(flows.to_numpy())
    rows: list[dict[str, Any]] = []
    for i, pathway in enumerate(flows.index):
        for j, phase in enumerate(names):
            value = float(flows.iat[i, j])
            known = np.isfinite(value)
            rows.append(
                {
                    keys.PHASE: phase, "pathway": pathway, "level": "pathway", "flow": value, "share": share[i, j],
                    "scaled": scaled[i, j], "n_patients": n_patients[phase], "status": keys.OK if known else keys.NOT_ESTIMABLE,
                    "reason": "" if known else "no link between types that every sample has",
                }
            )  # fmt: skip
    pathways, flow, counts = matrices
    for w, pathway in enumerate(pathways):
        for k, phase in enumerate(names):
            matrix = flow[k, w]
            whole = np.nansum(matrix)
            for level, column, axis in (("sender", "source", 1), ("receiver", "target", 0)):
                sums = np.nansum(matrix, axis=axis)
                order = [i for i in np.lexsort((list(types), -sums)) if sums[i] > 0][:most]
                for place, i in enumerate(order, start=1):
                    rows.append(
                        {
                            keys.PHASE: phase, "pathway": pathway, "level": level, "rank": place, column: types[i],
                            "flow": float(sums[i]), "share": float(sums[i] / whole), "n_patients": n_patients[phase],
                            "status": keys.OK, "reason": "",
                        }
                    )  # fmt: skip
            if pathway not in headline:
                continue
            for i, a in enumerate(types):
                for j, b in enumerate(types):
                    lost = [] if counts[k, i, j] else [t for t in dict.fromkeys((a, b)) if phase in absent.get(t, {})]
                    why = "; ".join(absent[t][phase] for t in lost) or "no sample has both types"
                    known = counts[k, i, j] > 0
                    rows.append(
                        {
                            keys.PHASE: phase, "pathway": pathway, "level": "types", "source": a, "target": b,
                            "flow": float(matrix[i, j]), "n_patients": int(counts[k, i, j]),
                            "status": keys.OK if known else keys.NOT_ESTIMABLE, "reason": "" if known else why,
                        }
                    )  # fmt: skip
    out = pd.DataFrame(rows, columns=list(PHASE_COLUMNS))
    out["n_samples"] = out[keys.PHASE].map(n_samples)
    out["rank"] = out["rank"].astype("Int64")
    return out


def absent_types(
    groups: pd.DataFrame, estimable: pd.DataFrame, phase_of: Mapping[str, str], sides: Sequence[Sides]
) -> pd.DataFrame:
    """comm_absent.tsv: every type that a sample could not estimate, and the comparisons that it leaves for that."""
    n_cells = groups.set_index(["cell_type", keys.SAMPLE])["n_cells"].astype(int)
    patients = groups.drop_duplicates(keys.SAMPLE).set_index(keys.SAMPLE)[keys.PATIENT].astype(str)
    of_phase: dict[str, list[str]] = {}
    for sample in estimable:
        of_phase.setdefault(phase_of[sample], []).append(sample)
    rows = []
    for name in estimable.index:
        for sample in estimable:
            if estimable.at[name, sample]:
                continue
            phase = phase_of[sample]
            gone = not estimable.loc[name, of_phase[phase]].any()
            left = [s.contrast for s in sides if sample in s.side_of]
            n = int(n_cells[name, sample])
            rows.append(
                (name, sample, patients[sample], phase, n, keys.YES if gone else keys.NO, ",".join(left), keys.NOT_ESTIMABLE,
                 f"{n} cells in {sample}, too few for an average")
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(ABSENT_COLUMNS))
