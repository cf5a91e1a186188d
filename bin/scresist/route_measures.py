"""The quantities that the rules of the resistance card ask for: how each is taken within a patient and between patients.

A measure takes the evidence of the run, a patient, two phases and the feature that a rule names, and gives the difference
(later minus earlier) with its 95 % interval, or the reason why there is none. routes.py turns them into votes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from scresist import comparison, keys
from scresist.clones import EMERGING, EXPANDING, detection_limit, newcombe
from scresist.decomposition import TOTAL

UP = "up"
MIN_PATHWAYS = 4  # of the named ones: with fewer the index is that of single pathways (chosen)
MIN_CALLED = 0.8  # of the malignant cells of a biopsy in clones with a call at a locus (chosen)
MIN_GROUP = 10  # cells of a clone whose program is compared with that of the others
LEVEL = 0.95


# --- what a rule names -----------------------------------------------------------------------------------------------


def parts_of(feature: str) -> list[tuple[list[str], str]]:
    """`A, B in tumour; panel:x in myeloid` as [([A, B], tumour), ([panel:x], myeloid)]; no compartment gives ''."""
    made = []
    for part in feature.split(";"):
        names, _, compartment = part.strip().partition(" in ")
        made.append(([name.strip() for name in names.split(",") if name.strip()], compartment.strip()))
    return made


def expanded(name: str, panels: Mapping[str, Sequence[str]]) -> list[str]:
    """The gene itself, or the genes of `panel:<name>`."""
    return list(panels.get(name.removeprefix("panel:"), ())) if name.startswith("panel:") else [name]


# --- what is known ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """The program of resistance: its column, +1 or -1 so that high means resistant, and how it was chosen."""

    column: str
    sign: int
    why: str


@dataclass
class Evidence:
    """Everything that items are made of.

    `cells` is indexed by cell with sample, patient, phase, main_type, tumour (bool), clone and epi_cluster ("" = none),
    cycle_phase, program (oriented, NaN = none); `expression` has the same index and one column per measured gene, ln(1 + CP10k);
    `masks` gives the cells of each compartment; `tables` are those of other steps by name, of all patients one below the other.
    """

    cells: pd.DataFrame
    expression: pd.DataFrame
    masks: Mapping[str, np.ndarray]
    tables: Mapping[str, pd.DataFrame]
    samples: pd.DataFrame
    panels: Mapping[str, Sequence[str]]
    decomposition: pd.DataFrame
    min_cells: int = 20
    program: Program | None = None
    contrasts: Mapping[str, comparison.Contrast] = field(default_factory=dict)
    groups: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """A table with these columns, or None where it is absent or empty."""
        frame = self.tables.get(name)
        return None if frame is None or frame.empty or not set(columns) <= set(frame) else frame

    def rows(self, patient: str, phase: str) -> np.ndarray:
        """Cells of one patient and phase."""
        if not self.groups:
            code = self.cells[keys.PATIENT].astype(str) + "\t" + self.cells[keys.PHASE].astype(str)
            for key, at in code.groupby(code, sort=True).indices.items():
                self.groups[tuple(key.split("\t"))] = np.asarray(at)
        return self.groups.get((patient, phase), np.array([], dtype=int))

    def inside(self, patient: str, phase: str, compartment: str) -> np.ndarray:
        """Cells of one patient, phase and compartment."""
        at = self.rows(patient, phase)
        mask = self.masks.get(compartment)
        return at[mask[at]] if mask is not None else at[:0]


@dataclass(frozen=True)
class Effect:
    """A measured difference (later minus earlier) with its 95 % interval; value NaN where it does not exist."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    unit: str = "cell"
    n_cells: int = 0
    n_samples: int = 0
    n_patients: int = 1
    reason: str = ""
    null: float = 0.0  # the value of no effect
    spread: float | None = None  # largest change of several, where `stable` is asked of all of them
    measured: str = ""
    evidence: str = keys.SINGLE_PATIENT
    status: str = ""

    @property
    def word(self) -> str:
        if self.status:
            return self.status
        return keys.OK if np.isfinite([self.value, self.low, self.high]).all() else keys.NOT_ESTIMABLE

    @property
    def estimable(self) -> bool:
        return self.word in (keys.OK, keys.WARNING)


def as_number(value: Any, otherwise: float = np.nan) -> float:
    """A cell of a table as a number; `otherwise` where it holds none."""
    number = pd.to_numeric(value, errors="coerce")
    return otherwise if pd.isna(number) else float(number)


# --- measures ---------------------------------------------------------------------------------------------------------


def auc(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Chance that a value of `a` exceeds one of `b` (ties half) with DeLong's 95 % interval (1988, Biometrics 44:837).

    Limits are NaN below two values a side and where every pair is ordered alike (no spread).
    """
    a, b = np.sort(np.asarray(a, dtype=float)), np.sort(np.asarray(b, dtype=float))
    if not len(a) or not len(b):
        return np.nan, np.nan, np.nan
    above = (np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")) / (2 * len(b))
    below = 1 - (np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")) / (2 * len(a))
    value = float(above.mean())
    if min(len(a), len(b)) < 2:
        return value, np.nan, np.nan
    se = np.sqrt(above.var(ddof=1) / len(a) + below.var(ddof=1) / len(b))
    if not se > 0:
        return value, np.nan, np.nan
    half = float(stats.norm.ppf(0.5 + LEVEL / 2) * se)
    return value, max(0.0, value - half), min(1.0, value + half)


def _n_samples(ev: Evidence, patient: str, *phases: str) -> int:
    own = ev.samples[ev.samples[keys.PATIENT] == patient]
    return int(own[keys.PHASE].isin(phases).sum())


def _n_patients(ev: Evidence, *phases: str) -> int:
    return int(ev.samples.loc[ev.samples[keys.PHASE].isin(phases), keys.PATIENT].nunique())


def _share_difference(ev: Evidence, patient: str, pair: tuple[str, str], counts: Sequence[float], measured: str) -> Effect:
    """Newcombe's interval of n_a / N_a - n_b / N_b."""
    n_a, total_a, n_b, total_b = (round(n) for n in counts)
    if min(total_a, total_b) < ev.min_cells:
        why = f"{total_b} cells in {pair[1]}, {total_a} in {pair[0]}, {ev.min_cells} needed in each"
        return Effect(reason=why, n_cells=total_a + total_b, measured=measured)
    value, low, high = newcombe(n_a, total_a, n_b, total_b)
    return Effect(value, low, high, "cell", total_a + total_b, _n_samples(ev, patient, *pair), measured=measured)


def _by_samples(
    ev: Evidence, pair: tuple[str, str], values: pd.Series, cells: pd.Series, unit: str, measured: str
) -> Effect:
    """One contrast of sample values between patients (comparison.compare) as an effect."""
    facts = ev.samples.set_index(keys.SAMPLE)
    side_a, side_b = (tuple(facts.index[facts[keys.PHASE] == phase]) for phase in pair)
    name = f"{pair[0]}_vs_{pair[1]}"
    # pairing is decided once, by CHECK_DESIGN; two phases that it does not compare are taken as unpaired
    contrast = ev.contrasts.get(name) or comparison.Contrast(name, side_a, side_b, False, keys.OK, "", "")
    row = comparison.compare(values, cells, contrast, facts[keys.PATIENT].to_dict())
    n_a, n_b = row["n_patients_a"], row["n_patients_b"]
    known = values.index[values.notna() & values.index.isin([*contrast.samples_a, *contrast.samples_b])]
    n = n_a if contrast.paired else int(facts.loc[known, keys.PATIENT].nunique())  # a patient on both sides is one
    word, reason = "", ""
    if not min(n_a, n_b):
        reason = f"{n_a} against {n_b} patients with values, 1 a side needed"
    elif not np.isfinite(row["ci_low"]):
        word, reason = keys.NO_REPLICATES, f"{n_a} against {n_b} patients with values, 2 a side needed for an interval"
    return Effect(
        row["effect"], row["ci_low"], row["ci_high"], unit, row["n_cells_a"] + row["n_cells_b"], row["n_a"] + row["n_b"],
        n, reason, measured=measured, evidence=row["evidence"], status=word,
    )  # fmt: skip


def _of_tests(ev: Evidence, name: str, pair: tuple[str, str], match: Mapping[str, str], measured: str) -> Effect:
    """The patient-level row of a table of tests as an effect."""
    tests = ev.table(name, *match, "contrast", "effect", "unit")
    if tests is None:
        return _absent(name, measured)
    keep = (tests["contrast"] == f"{pair[0]}_vs_{pair[1]}") & (tests["unit"] == comparison.UNIT_PATIENT)
    if "test" in tests:  # pairs after a test over all phases stand beside the contrasts
        keep &= tests["test"] != "dunn"
    for column, value in match.items():
        keep &= tests[column].astype(str) == value
    if not keep.any():
        return Effect(reason=f"{name}.tsv has no row for {measured} in {pair[0]}_vs_{pair[1]}", n_patients=0, measured=measured)
    if keep.sum() > 1:
        why = f"{name}.tsv has {keep.sum()} rows for {measured}: which is meant? Name it in the rule, such as progeny:TGFb"
        return Effect(reason=why, n_patients=0, measured=measured)
    row = tests[keep].iloc[0]
    value, low, high = (as_number(row[column]) for column in ("effect", "ci_low", "ci_high"))
    sizes = ("n_a", "n_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b")
    n = {column: int(as_number(row[column], 0)) for column in sizes}
    word, reason = "", ""
    if not np.isfinite([low, high]).all():
        found = f"{n['n_patients_a']} against {n['n_patients_b']} patients"
        word = keys.NO_REPLICATES if np.isfinite(value) else ""
        reason = f"{found} with values, 2 a side needed for an interval"
    return Effect(
        value, low, high, comparison.UNIT_PATIENT, n["n_cells_a"] + n["n_cells_b"], n["n_a"] + n["n_b"],
        min(n["n_patients_a"] + n["n_patients_b"], _n_patients(ev, *pair)), reason, measured=measured,
        evidence=str(row["evidence"]), status=word,
    )  # fmt: skip


def _absent(name: str, measured: str = "") -> Effect:
    return Effect(reason=f"{name}.tsv is absent or empty: the step before it did not run or found nothing", measured=measured)


def _changes(ev: Evidence, patient: str, pair: tuple[str, str]) -> pd.DataFrame | Effect:
    """Rows of clone_changes of a patient and pair, or why there are none."""
    table = ev.table("clone_changes", keys.PATIENT, "contrast", "diff", "class")
    if table is None:
        return _absent("clone_changes")
    own = table[(table[keys.PATIENT] == patient) & (table["contrast"] == f"{pair[0]}_vs_{pair[1]}")]
    if own.empty:
        return Effect(reason="no clones were traced in both biopsies")
    if len(own) < 2:
        return Effect(reason="one clone only: a shift between clones cannot be seen", n_cells=int(_cells(own)))
    if (own["status"] != keys.OK).any():
        cells = f"{int(as_number(own['N_b'].iloc[0], 0))} and {int(as_number(own['N_a'].iloc[0], 0))} malignant cells"
        return Effect(reason=f"{cells} in {pair[1]} and {pair[0]}, too few to compare clones")
    return own


def _cells(own: pd.DataFrame) -> float:
    return as_number(own["N_a"].iloc[0], 0) + as_number(own["N_b"].iloc[0], 0)


def clone_growth(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Largest gain in share of a clone that had cells before; `stable` needs every clone within the rule's threshold."""
    own = _changes(ev, patient, pair)
    if isinstance(own, Effect):
        return own
    before = own[own["n_b"].astype(float) > 0]
    if before.empty:
        return Effect(reason="no clone of the earlier biopsy")
    best = before.sort_values(["diff", "clone"], ascending=[False, True]).iloc[0]
    low, high = float(best["ci_low"]), float(best["ci_high"])
    return Effect(
        float(best["diff"]), low, high, "cell", int(_cells(own)), _n_samples(ev, patient, *pair),
        spread=float(own["diff"].astype(float).abs().max()), measured=f"share of {best['clone']}",
    )  # fmt: skip


def clone_diversity(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Difference of a rarefied index; limits such that 0 lies outside exactly when the two intervals do not touch."""
    table = ev.table("clone_diversity", keys.PATIENT, keys.PHASE, "index", "value")
    if table is None:
        return _absent("clone_diversity", feature)
    changes = _changes(ev, patient, pair)
    if isinstance(changes, Effect):
        return changes
    own = table[(table[keys.PATIENT] == patient) & (table["index"] == feature)].set_index(keys.PHASE)
    if not set(pair) <= set(own.index) or own.loc[list(pair), "value"].isna().any():
        return Effect(reason="a biopsy has too few malignant cells for a diversity", measured=feature)
    a, b = own.loc[pair[0]], own.loc[pair[1]]
    return Effect(
        float(a["value"]) - float(b["value"]), float(a["ci_low"]) - float(b["ci_high"]), float(a["ci_high"]) - float(b["ci_low"]),
        "cell", int(a["n_cells"]) + int(b["n_cells"]), _n_samples(ev, patient, *pair), measured=feature,
    )  # fmt: skip


def program_auc(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Before therapy: program in cells of the clone that grew most against cells of the other clones."""
    own = _changes(ev, patient, pair)
    if isinstance(own, Effect):
        return own
    if ev.program is None:
        return Effect(reason="no resistance program: no co-expression module was found or compared", null=0.5)
    grown = own[(own["class"] == EXPANDING) & (own["n_b"].astype(float) > 0)].sort_values(
        ["diff", "clone"], ascending=[False, True]
    )
    if grown.empty:
        return Effect(reason="no clone grew", null=0.5)
    name = str(grown["clone"].iloc[0])
    at = ev.inside(patient, pair[1], keys.TUMOUR)
    part = ev.cells.iloc[at]
    part = part[part["program"].notna() & (part[keys.CLONE] != "")]
    mine, others = (part.loc[mask, "program"].to_numpy() for mask in (part[keys.CLONE] == name, part[keys.CLONE] != name))
    measured = f"{ev.program.column} of {name} against other clones in {pair[1]}"
    if min(len(mine), len(others)) < MIN_GROUP:
        why = f"{len(mine)} cells of {name} and {len(others)} of other clones before therapy, {MIN_GROUP} needed of each"
        return Effect(reason=why, n_cells=len(part), null=0.5, measured=measured)
    value, low, high = auc(mine, others)
    return Effect(value, low, high, "cell", len(part), _n_samples(ev, patient, pair[1]), null=0.5, measured=measured)


def decomposed(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """A part of the change of the resistance program, turned so that positive means towards resistance.

    It counts where the whole program moved towards resistance. Where it did not (the interval of the whole change holds 0, or
    lies below), there is no rise to divide: the part is given, and its limits are widened to hold 0.
    """
    if ev.program is None:
        return Effect(reason="no resistance program: no co-expression module was found or compared")
    frame = ev.decomposition[ev.decomposition["score"] == ev.program.column]
    own = frame[(frame[keys.PATIENT] == patient) & (frame["contrast"] == f"{pair[0]}_vs_{pair[1]}")]
    if own.empty or not np.isfinite(as_number(own[feature].iloc[0])):
        return Effect(reason=str(own["reason"].iloc[0]) if len(own) else "no tumour cells in both biopsies")
    row = own.iloc[0]
    way = ev.program.sign
    low, high = sorted((way * row[f"{feature}_low"], way * row[f"{feature}_high"]))
    if min(way * row[f"{TOTAL}_low"], way * row[f"{TOTAL}_high"]) <= 0:
        low, high = min(low, 0.0), max(high, 0.0)
    n = int(row["n_cells_a"]) + int(row["n_cells_b"])
    turned = "" if way > 0 else ", turned: this module falls with resistance"
    measured = f"{feature} of {ev.program.column}{turned}"
    return Effect(way * row[feature], low, high, "cell", n, _n_samples(ev, patient, *pair), measured=measured)


def clone_emergence(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Later share of the largest clone that is `emerging`; 0 with the detection limit where no clone is new."""
    own = _changes(ev, patient, pair)
    if isinstance(own, Effect):
        return own
    n, samples = int(_cells(own)), _n_samples(ev, patient, *pair)
    new = own[own["class"] == EMERGING].sort_values(["diff", "clone"], ascending=[False, True])
    if len(new):
        best = new.iloc[0]
        value, low, high = (float(best[column]) for column in ("diff", "ci_low", "ci_high"))
        return Effect(value, low, high, "cell", n, samples, measured=f"share of {best['clone']}")
    unseen = own[(own["n_b"].astype(float) == 0) & (own["ci_low"].astype(float) > 0)]
    if len(unseen):
        limit = detection_limit(int(own["N_b"].iloc[0]))
        return Effect(reason=f"a clone is new, but a share of {limit:.2f} before therapy could have been missed", n_cells=n)
    return Effect(0.0, 0.0, detection_limit(int(own["N_a"].iloc[0])), "cell", n, samples, measured="no new clone")


def cycling_share(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Change of the share of tumour cells in the named phases of the cell cycle."""
    wanted = [name.strip() for name in feature.split(",")]
    counts: list[float] = []
    for phase in pair:
        at = ev.inside(patient, phase, keys.TUMOUR)
        state = ev.cells[keys.CYCLE_PHASE].to_numpy()[at]
        known = np.isin(state, ["G1", "S", "G2M"])
        counts += [int(np.isin(state, wanted).sum()), int(known.sum())]
    return _share_difference(ev, patient, pair, counts, f"tumour cells in {feature}")


def cycling_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """The same between patients, from the share in each sample."""
    wanted = [name.strip() for name in feature.split(",")]
    part = ev.cells[ev.masks[keys.TUMOUR] & ev.cells[keys.CYCLE_PHASE].isin(["G1", "S", "G2M"])]
    grouped = part[keys.CYCLE_PHASE].isin(wanted).groupby(part[keys.SAMPLE].astype(str))
    size = grouped.size()
    measured = f"tumour cells in {feature}"
    return _by_samples(ev, pair, grouped.mean()[size >= ev.min_cells], size, comparison.UNIT_PATIENT, measured)


def state_emergence(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Later share, within clones that were there before, of the largest state that had no cell before."""
    sides = []
    for phase in pair:
        part = ev.cells.iloc[ev.inside(patient, phase, keys.TUMOUR)]
        sides.append(part[part[keys.EPI_CLUSTER] != ""])
    later, before = sides
    old = set(before[keys.CLONE]) - {""}
    if old:
        later = later[later[keys.CLONE].isin(old)]
    n_a, n_b = len(later), len(before)
    if min(n_a, n_b) < ev.min_cells:
        return Effect(reason=f"{n_b} cells in {pair[1]}, {n_a} in {pair[0]}, {ev.min_cells} needed in each", n_cells=n_a + n_b)
    limit = detection_limit(n_b)
    samples = _n_samples(ev, patient, *pair)
    new = later[~later[keys.EPI_CLUSTER].isin(set(before[keys.EPI_CLUSTER]))][keys.EPI_CLUSTER].value_counts()
    if new.empty:
        return Effect(0.0, 0.0, detection_limit(n_a), "cell", n_a + n_b, samples, measured="no new state")
    if limit > 0.05:  # emerging_limit of TRACE_CLONES
        return Effect(reason=f"a state of {limit:.2f} of the cells could have been missed in {pair[1]}", n_cells=n_a + n_b)
    best = min(new[new == new.max()].index)
    value, low, high = newcombe(int(new[best]), n_a, 0, n_b)
    return Effect(value, low, high, "cell", n_a + n_b, samples, measured=f"state {best}")


def _lineage_counts(ev: Evidence, lineage: str) -> pd.DataFrame | None:
    table = ev.table("proportions", keys.SAMPLE, "level", "denominator", keys.LINEAGE, "n_cells", "n_total")
    if table is None:
        return None
    part = table[(table["level"] == keys.MAIN_TYPE) & (table["denominator"] == "all")]
    counts = part.assign(own=part["n_cells"].where(part[keys.LINEAGE] == lineage, 0))
    return counts.groupby(part[keys.SAMPLE].astype(str)).agg(n=("own", "sum"), total=("n_total", "max"))


def lineage_share(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Change of the share of a lineage among all cells of the biopsies."""
    found = _lineage_counts(ev, feature)
    if found is None:
        return _absent("proportions", f"{feature} cells")
    own = ev.samples[ev.samples[keys.PATIENT] == patient].set_index(keys.SAMPLE)[keys.PHASE]
    counts: list[float] = []
    for phase in pair:
        names = [sample for sample in own.index[own == phase] if sample in found.index]
        counts += [float(found.loc[names, "n"].sum()), float(found.loc[names, "total"].sum())]
    return _share_difference(ev, patient, pair, counts, f"{feature} cells among all")


def lineage_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """The same between patients."""
    found = _lineage_counts(ev, feature)
    if found is None:
        return _absent("proportions", f"{feature} cells")
    known = found[found["total"] >= ev.min_cells]
    measured = f"{feature} cells among all"
    return _by_samples(ev, pair, known["n"] / known["total"], known["total"], comparison.UNIT_PATIENT, measured)


def _scored(ev: Evidence, names: Sequence[str]) -> np.ndarray | None:
    genes = [gene for name in names for gene in expanded(name, ev.panels) if gene in ev.expression]
    return ev.expression[genes].to_numpy().mean(axis=1) if genes else None


def _named(ev: Evidence, names: Sequence[str]) -> str:
    """The genes behind a mean: those that were measured, and of how many."""
    genes = [gene for name in names for gene in expanded(name, ev.panels)]
    known = [gene for gene in genes if gene in ev.expression]
    if not known or len(known) == len(genes):
        return ", ".join(names)
    kept = [name for name in names if name in known or name.startswith("panel:")]
    return f"{', '.join(kept)} ({len(known)} of {len(genes)} genes measured)"


def _sides(
    ev: Evidence, patient: str, pair: tuple[str, str], compartment: str, values: np.ndarray, least: int
) -> list[pd.DataFrame]:
    """Of each biopsy: number of cells (`least` or more), mean and variance of `values` per stratum (index).

    The strata of a compartment that joins several types (T cells, myeloid cells) are these types; tumour cells are one stratum,
    whatever their type was called.
    """
    made = []
    for phase in pair:
        at = ev.inside(patient, phase, compartment)
        types = ev.cells[keys.MAIN_TYPE].to_numpy()[at] if compartment != keys.TUMOUR else np.full(len(at), keys.TUMOUR)
        found = pd.DataFrame({"value": values[at]}).groupby(types.astype(str))["value"].agg(["size", "mean", "var"])
        made.append(found[found["size"] >= least])
    return made


def _too_few(ev: Evidence, both: pd.DataFrame, pair: tuple[str, str], compartment: str) -> tuple[str, int]:
    """Why a comparison has too few cells ("" where it has enough), and how many it rests on."""
    n_a, n_b = int(both["size_a"].sum()), int(both["size_b"].sum())
    if min(n_a, n_b) >= ev.min_cells:
        return "", n_a + n_b
    types = f" of types that both biopsies hold: {n_b} in {pair[1]}, {n_a} in {pair[0]}, {ev.min_cells} needed in each"
    return f"cells of {compartment}{types}", n_a + n_b


def standardised(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """What both sides hold, with the weight of each stratum: n_a n_b / (n_a + n_b), as a share of their sum (Mantel and Haenszel
    1959, J Natl Cancer Inst 22:719). Types that come or go between two biopsies then do not count as a change of the gene.

    Parameters
    ----------
    a, b
        size, mean, var by stratum (`_sides`).

    Returns
    -------
    DataFrame
        size_a, mean_a, var_a, size_b, mean_b, var_b, weight; empty where the sides share no stratum.
    """
    both = a.join(b, how="inner", lsuffix="_a", rsuffix="_b")
    weight = both["size_a"] * both["size_b"] / (both["size_a"] + both["size_b"])
    return both.assign(weight=weight / weight.sum())


def expression(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Change of the mean of ln(1 + CP10k) over genes, standardised over the types of the compartment, with Welch's interval."""
    (names, compartment), *_ = parts_of(feature)
    measured = f"{_named(ev, names)} in {compartment}"
    values = _scored(ev, names)
    if values is None:
        return Effect(reason="gene_absent: none of the genes was measured", measured=measured)
    both = standardised(*_sides(ev, patient, pair, compartment, values, 2))
    few, n = _too_few(ev, both, pair, compartment)
    if few:
        return Effect(reason=few, n_cells=n, measured=measured)
    found = _welch(both)
    reason = "" if np.isfinite(found).all() else "all values are equal"
    return Effect(*found, "cell", n, _n_samples(ev, patient, *pair), reason=reason, measured=measured)


def _welch(both: pd.DataFrame) -> tuple[float, float, float]:
    """Weighted difference of means with its t interval; degrees of freedom after Satterthwaite (1946, Biometrics 2:110)."""
    value = float((both["weight"] * (both["mean_a"] - both["mean_b"])).sum())
    parts = np.concatenate([both["weight"] ** 2 * both[f"var_{side}"] / both[f"size_{side}"] for side in "ab"])
    spare = np.concatenate([both["size_a"] - 1, both["size_b"] - 1])
    if not parts.sum() > 0:
        return value, np.nan, np.nan
    half = float(stats.t.ppf(0.5 + LEVEL / 2, parts.sum() ** 2 / (parts**2 / spare).sum()) * np.sqrt(parts.sum()))
    return value, value - half, value + half


def expression_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """Difference between patients of the mean of each sample (not standardised)."""
    (names, compartment), *_ = parts_of(feature)
    measured = f"{_named(ev, names)} in {compartment}"
    values, mask = _scored(ev, names), ev.masks.get(compartment)
    if values is None or mask is None:
        why = "gene_absent: none of the genes was measured" if values is None else f"no cells of {compartment}"
        return Effect(reason=why, n_patients=0, measured=measured)
    grouped = pd.Series(values[mask]).groupby(ev.cells[keys.SAMPLE].astype(str).to_numpy()[mask])
    size = grouped.size()
    return _by_samples(ev, pair, grouped.mean()[size >= ev.min_cells], size, comparison.UNIT_PATIENT, measured)


def _shares(ev: Evidence, feature: str) -> tuple[pd.DataFrame, str] | Effect:
    (names, compartment), *_ = parts_of(feature)
    measured = f"{names[0]}-positive cells of {compartment}"
    table = ev.table("panel_values", "gene", "cell_type", keys.SAMPLE, "n_cells", "pct")
    if table is None:
        return _absent("panel_values", measured)
    own = table[(table["gene"] == names[0]) & (table["cell_type"] == compartment)].drop_duplicates(keys.SAMPLE)
    own = own[own["pct"].notna()]
    if own.empty:
        return Effect(reason=f"panel_values.tsv has no value of {names[0]} in {compartment}", measured=measured)
    return own.set_index(own[keys.SAMPLE].astype(str)), measured


def gene_share(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Change of the share of cells with a count of one gene, standardised over the types of the compartment.

    Newcombe's interval of the standardised shares, each with the number of cells that would give it the same precision,
    1 / sum(weight^2 / n) (after Yan and Su 2010, Stat Biopharm Res 2:329); with one type it is Newcombe's own.
    """
    (names, compartment), *_ = parts_of(feature)
    measured = f"{names[0]}-positive cells of {compartment}"
    values = _scored(ev, names[:1])
    if values is None:
        return Effect(reason=f"gene_absent: {names[0]} was not measured", measured=measured)
    both = standardised(*_sides(ev, patient, pair, compartment, (values > 0).astype(float), 1))
    few, n = _too_few(ev, both, pair, compartment)
    if few:
        return Effect(reason=few, n_cells=n, measured=measured)
    sides: list[float] = []
    for side in "ab":
        worth = 1 / float((both["weight"] ** 2 / both[f"size_{side}"]).sum())
        sides += [worth * float((both["weight"] * both[f"mean_{side}"]).sum()), worth]
    found = newcombe(*sides)
    return Effect(*found, "cell", n, _n_samples(ev, patient, *pair), measured=measured)


def gene_share_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """Difference between patients of each sample's share of positive cells in panel_values.tsv (not standardised)."""
    found = _shares(ev, feature)
    if isinstance(found, Effect):
        return found
    own, measured = found
    values, size = own["pct"].astype(float) / 100, own["n_cells"].astype(float)
    return _by_samples(ev, pair, values, size, comparison.UNIT_PATIENT, measured)


def _flow_index(ev: Evidence, pair: tuple[str, str], feature: str) -> tuple[pd.Series, str]:
    """Sample -> mean of the named pathways' flows, each in units of its mean over the samples and negative where it should fall.

    Pathways of one biopsy come from the same cells and move together, so they are no replicates: one value per sample.
    The second value says why there is none, or how many pathways there are.
    """
    table = ev.table("flow", "contrast", keys.SAMPLE, "pathway", "flow_common")
    nothing = pd.Series(dtype=float)
    if table is None:
        return nothing, "flow.tsv is absent or empty: the step before it did not run or found nothing"
    own = table[table["contrast"] == f"{pair[0]}_vs_{pair[1]}"]
    wide = own.groupby([own[keys.SAMPLE].astype(str), "pathway"], sort=True)["flow_common"].mean().unstack()
    signs = {name.strip(): 1.0 if way.strip() == UP else -1.0 for name, _, way in (p.rpartition(":") for p in feature.split(";"))}
    wide = wide[[name for name in wide if name in signs and wide[name].notna().all() and wide[name].sum() > 0]]
    if wide.shape[1] < MIN_PATHWAYS:
        return nothing, f"{wide.shape[1]} of the named pathways flow between types that all samples have, {MIN_PATHWAYS} needed"
    return (wide / wide.mean() * pd.Series(signs)[wide.columns]).mean(axis=1), f"{wide.shape[1]} pathways"


def pathway_flow(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Relative change of the flows of the named pathways between a patient's biopsies; one value per biopsy has no interval."""
    index, said = _flow_index(ev, pair, feature)
    if index.empty:
        return Effect(reason=said, measured="pathways")
    facts = ev.samples[ev.samples[keys.PATIENT] == patient].set_index(keys.SAMPLE)[keys.PHASE]
    a, b = (float(index.reindex(facts.index[facts == phase]).mean()) for phase in pair)
    if not np.isfinite([a, b]).all():
        return Effect(reason=f"flow.tsv has no samples of the patient in {pair[0]}_vs_{pair[1]}", measured=said)
    return Effect(
        a - b, unit=comparison.UNIT_SAMPLE, n_samples=_n_samples(ev, patient, *pair), measured=said,
        reason="one value per biopsy has no interval", status=keys.NO_REPLICATES,
    )  # fmt: skip


def pathway_flow_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """The same between patients, from one value per sample."""
    index, said = _flow_index(ev, pair, feature)
    if index.empty:
        return Effect(reason=said, n_patients=0, measured="pathways")
    cells = ev.cells[keys.SAMPLE].astype(str).value_counts().reindex(index.index).fillna(0)
    return _by_samples(ev, pair, index, cells, comparison.UNIT_PATIENT, said)


def locus_loss(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Change of the share of malignant cells that are in clones with a loss at the gene's locus."""
    called = ev.table("panel_clones", keys.PATIENT, "clone", "gene", "locus_call")
    shares = ev.table("clone_phases", keys.PATIENT, "clone", keys.PHASE, "n", "N")
    if called is None or shares is None:
        return _absent("panel_clones" if called is None else "clone_phases", f"locus of {feature}")
    own = called[(called[keys.PATIENT].astype(str) == patient) & (called["gene"] == feature)]
    own = own[own["locus_call"].notna() & (own["locus_call"] != "")]
    mine = shares[shares[keys.PATIENT].astype(str) == patient]
    if own.empty or not set(pair) <= set(mine[keys.PHASE]):
        return Effect(reason="no clone with a copy-number call at the locus in both biopsies", measured=f"locus of {feature}")
    lost = set(own.loc[own["locus_call"] == "loss", "clone"])
    counts: list[float] = []
    for phase in pair:
        part = mine[mine[keys.PHASE] == phase]
        judged = part[part["clone"].isin(own["clone"])]  # a clone without a call is not one without a loss
        if judged["n"].sum() < MIN_CALLED * part["n"].sum():
            n, every = int(judged["n"].sum()), int(part["n"].sum())
            why = f"{n} of {every} malignant cells in {phase} are in clones with a call at the locus, {MIN_CALLED:.0%} needed"
            return Effect(reason=why, n_cells=every, measured=f"locus of {feature}")
        counts += [float(judged.loc[judged["clone"].isin(lost), "n"].sum()), float(judged["n"].sum())]
    return _share_difference(ev, patient, pair, counts, f"cells with a loss at {feature}")


def _network(name: str) -> tuple[str, dict[str, str]]:
    """`progeny:TGFb` as the source TGFb and what rows of activity.tsv must hold; sums per sample, not means of cells."""
    network, _, source = name.rpartition(":")
    return source, {"source": source, "level": "pseudobulk"} | ({"network": network} if network else {})


def _rows_of(table: pd.DataFrame, match: Mapping[str, str]) -> pd.DataFrame:
    keep = pd.Series(True, index=table.index)
    for column, value in match.items():
        keep &= table[column].astype(str) == value
    return table[keep]


def activity(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Difference of the pathway score between a patient's samples; one value per sample has no interval."""
    (names, compartment), *_ = parts_of(feature)
    source, match = _network(names[0])
    measured = f"{source} response of {compartment}"
    table = ev.table("activity", keys.SAMPLE, "cell_type", "score", "network", *match)
    if table is None:
        return _absent("activity", measured)
    own = _rows_of(table, {"cell_type": compartment, **match})
    if own["network"].nunique() > 1:
        return Effect(reason=f"several networks have {source}; name one in the rule, such as progeny:{source}", measured=measured)
    phase_of = ev.samples[ev.samples[keys.PATIENT] == patient].set_index(keys.SAMPLE)[keys.PHASE]
    phase = own[keys.SAMPLE].astype(str).map(phase_of)
    a, b = (own.loc[phase == one, "score"].astype(float).mean() for one in pair)
    if not np.isfinite([a, b]).all():
        return Effect(reason="no score in both biopsies", measured=measured)
    return Effect(
        a - b, unit=comparison.UNIT_SAMPLE, n_samples=_n_samples(ev, patient, *pair), measured=measured,
        reason="one value per biopsy has no interval", status=keys.NO_REPLICATES,
    )  # fmt: skip


def activity_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """The same between patients, from activity_tests.tsv."""
    (names, compartment), *_ = parts_of(feature)
    source, match = _network(names[0])
    return _of_tests(ev, "activity_tests", pair, {"cell_type": compartment, **match}, f"{source} response of {compartment}")


def tcell_score(ev: Evidence, patient: str, pair: tuple[str, str], feature: str) -> Effect:
    """Difference of the mean score between a patient's biopsies; the table keeps no spread of the mean: no interval."""
    (names, compartment), *_ = parts_of(feature)
    measured = f"{names[0]} score of {compartment}"
    table = ev.table("tcell_values", "score", "cell_type", keys.SAMPLE, "mean", "n_cells")
    if table is None:
        return _absent("tcell_values", measured)
    own = table[table["score"].isin([names[0], f"{names[0]}_score"]) & (table["cell_type"] == compartment)]
    own = own[(own[keys.PATIENT].astype(str) == patient) & own["mean"].notna()]
    a, b = (own.loc[own[keys.PHASE].astype(str) == phase] for phase in pair)
    if a.empty or b.empty:
        return Effect(reason="no score in both biopsies", measured=measured)
    means = [float(np.average(part["mean"].astype(float), weights=part["n_cells"].astype(float))) for part in (a, b)]
    return Effect(
        means[0] - means[1], unit=comparison.UNIT_SAMPLE, n_cells=int(a["n_cells"].sum() + b["n_cells"].sum()),
        n_samples=_n_samples(ev, patient, *pair), measured=measured, reason="one value per biopsy has no interval",
        status=keys.NO_REPLICATES,
    )  # fmt: skip


def tcell_between(ev: Evidence, pair: tuple[str, str], feature: str) -> Effect:
    """The same between patients, from tcell_tests.tsv."""
    (names, compartment), *_ = parts_of(feature)
    table = ev.table("tcell_tests", "score")
    name = names[0]
    if table is not None and name not in set(table["score"]):
        name = f"{name}_score"
    match = {"score": name, "cell_type": compartment}
    return _of_tests(ev, "tcell_tests", pair, match, f"{names[0]} score of {compartment}")


SHARE = "share of cells"


@dataclass(frozen=True)
class Measure:
    """How a quantity is taken within a patient and between patients; without `between` the patients' values are averaged."""

    within: Callable[[Evidence, str, tuple[str, str], str], Effect]
    between: Callable[[Evidence, tuple[str, str], str], Effect] | None = None
    feature: str = ""  # what the rule has to name
    alternatives: bool = False  # `;` parts features of which one is enough
    scale: str = SHARE  # the unit of the value


LOG, AREA, PROGRAM, RELATIVE = "ln(1 + CP10k)", "area under the curve", "score of the program", "relative flow"
_GENES = "genes or panel:<name> in a compartment, such as ERBB2 in tumour"
_PANEL_GENE = "a gene of a panel in a cell type, such as PDCD1 in t_cell"
MEASURES: dict[str, Measure] = {
    "clone_growth": Measure(clone_growth),
    "clone_diversity": Measure(clone_diversity, feature="an index such as hill_q1", scale="effective number of clones"),
    "program_auc": Measure(program_auc, scale=AREA),
    "decomposition": Measure(decomposed, feature="selection or reprogramming", scale=PROGRAM),
    "clone_emergence": Measure(clone_emergence),
    "cycling_share": Measure(cycling_share, cycling_between, "phases of the cell cycle, such as S, G2M"),
    "state_emergence": Measure(state_emergence),
    "lineage_share": Measure(lineage_share, lineage_between, "a lineage such as immune"),
    "expression": Measure(expression, expression_between, _GENES, True, LOG),
    "gene_share": Measure(gene_share, gene_share_between, _PANEL_GENE, True),
    "pathway_flow": Measure(
        pathway_flow, pathway_flow_between, "pathways with a direction, such as TGFb:up; CXCL:down", scale=RELATIVE
    ),
    "locus_loss": Measure(locus_loss, feature="a gene whose locus the panels ask for"),
    "activity": Measure(activity, activity_between, "a pathway in a cell type, such as progeny:TGFb in tumour", scale="t value"),
    "tcell_score": Measure(tcell_score, tcell_between, "a score in a cell type, such as exhaustion in t_cell", scale=LOG),
}
