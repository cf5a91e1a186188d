"""What SIMULATE_COHORT plants in tumour cells: copy-number clones, genes of a phase, co-expression modules, a marker, panels.

A `Tumour` belongs to a patient and is drawn from the patient's own seed (the demo's are written down); a `Plan` belongs to the
cohort. `plant` is the step between the tumour effect and the batch effect of `simulation.simulate_sample`. Every background gene
carries at most one effect of phase, module or patient, so that each has one true fold. Effects are natural logarithms of folds
unless a name says log2. Dosage: mRNA follows DNA less than linearly, ln fold = DOSAGE x ln(CN / 2) for all genes of an arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import pandas as pd

from scresist.simulation import Model

DOSAGE = 0.85
COPY_NUMBERS = (1, 3, 4)
COPY_NUMBER_ODDS = (0.45, 0.35, 0.20)
CLONE_NUMBER_ODDS = (0.40, 0.35, 0.25)  # of one, two and three clones
N_TRUNK = 3
N_PRIVATE = (2, 4)
MIN_ARM_SHARE = 0.015  # of the placed autosomal genes: arms large enough to be seen at a few thousand genes
NO_EVENT_ARMS = ("6p",)  # MHC: its change with the phase is planted on its own
TRUNK, PRIVATE = "trunk", "private"
HAS_CLONES, QUIET, TUMOUR_FREE = "clones", "quiet", "none"
KINDS = (HAS_CLONES, QUIET, TUMOUR_FREE)
# Shares of the clones by phase for tumours that are drawn: the first expands, the second is lost, the third emerges.
COURSES: dict[int, dict[str, tuple[float, ...]]] = {
    1: {"": (1.0,)},
    2: {"": (0.35, 0.65), "RES": (0.55, 0.45), "POST": (0.7, 0.3)},
    3: {"": (0.35, 0.65, 0.0), "RES": (0.7, 0.3, 0.0), "POST": (0.6, 0.0, 0.4)},
}

# Phase -> (genes up, genes down) in malignant cells against PRE; log2 fold drawn from PHASE_LOG2_FOLD.
PHASE_GENES: dict[str, tuple[int, int]] = {"PRE-R": (25, 25), "RES": (20, 20), "POST": (25, 25)}
PHASE_LOG2_FOLD = (1.2, 2.0)
# Named genes of the study: target and inhibitor of the payload's protease.
PHASE_NAMED_LOG2: dict[str, dict[str, float]] = {"POST": {"ERBB2": -1.5, "CST3": 1.5}}
MIN_LEVEL_CP10K = 1.0  # of a gene in epithelium to carry an effect: about half a count per cell

# Module -> trait it follows, sign, phase that moves its activity, that move (sd of activity between cells is about 1).
MODULES: dict[str, tuple[str, int, str, float]] = {
    "primary": ("primary_resistance", 1, "PRE-R", 0.8),
    "acquired": ("acquired_resistance", -1, "POST", -1.4),
}
MODULE_SIZE = 70
MODULE_LOADING = (0.55, 0.8)  # ln fold per unit of activity
MODULE_NAMED = {"primary": ("FABP1", "MUC17", "REG1A")}
SAMPLE_ACTIVITY_SD = 0.15
ACTIVITY_SD = {"primary": 0.9, "acquired": 1.0}
# Where shares of clones change with the phase, the first clone, which expands, has the program of resistance already at baseline:
# (module, added to its activity in that clone in every phase), with the sign of the module's move in acquired resistance.
CARRIED = ("acquired", -0.6)
# A stratum of malignant cells with the marker; it carries the module of primary resistance.
MARKER, MARKER_MODULE, MARKER_PHASE = "MUC3A", "primary", "PRE-R"
MARKER_SHARE = {MARKER_PHASE: 0.45}
MARKER_SHARE_ELSEWHERE = 0.06
MARKER_LN_FOLD = log(12.0)  # of the marker itself in its stratum
MARKER_ACTIVITY = 1.2  # added to the module's activity in the stratum

# Panel, gene, where (lineage, main type or all), phase -> ln fold against PRE.
MHC_I = ("HLA-A", "HLA-B", "HLA-C", "HLA-E", "B2M")
T_CELLS = ("CD4_T", "CD8_T")
LYMPHOCYTES = ("B", "CD4_T", "CD8_T", "NK")
PANEL_EFFECTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], dict[str, float]], ...] = (
    ("checkpoint", ("PDCD1",), T_CELLS, {"RES": -0.9, "POST": 0.9}),
    ("mhc_1", MHC_I, (), {"RES": 0.5}),
    ("tgfb", ("TGFB1",), LYMPHOCYTES, {"RES": -2.0, "POST": 0.7}),
    ("cxcl", ("CXCL9", "CXCL10", "CXCL11"), ("Macrophage", "DC"), {"RES": 1.0}),
)
# What these mean for communication: pathway (as in assets/lr_pathways.tsv), panel above, senders, receiver that is named.
SIGNALS = (
    ("TGFb", "tgfb", LYMPHOCYTES, "Endothelial"),
    ("MHC-I", "mhc_1", (), ""),
    ("CXCL", "cxcl", ("Macrophage", "DC"), ""),
)


@dataclass(frozen=True)
class Tumour:
    """Clones of one patient.

    kind: one of KINDS. clones: names `<patient>.a` and so on. events: clone, arm, copy_number, kind (trunk or private). shares:
    phase -> share of each clone among malignant cells; the key "" stands for every phase that is not named.
    """

    patient: str
    kind: str
    clones: tuple[str, ...]
    events: pd.DataFrame
    shares: dict[str, tuple[float, ...]]

    def share(self, phase: str) -> np.ndarray:
        """Share of each clone in a phase."""
        return np.array(self.shares.get(phase, self.shares[""]))

    def carried(self) -> np.ndarray:
        """clones x modules: activity that a clone has beyond the others (CARRIED)."""
        made = np.zeros((len(self.clones), len(MODULES)))
        if len(self.clones) > 1 and len(self.shares) > 1:
            name, shift = CARRIED
            made[0, list(MODULES).index(name)] = shift
        return made


def tumour(
    patient: str, kind: str, trunk: dict[str, int], private: list[dict[str, int]], shares: dict[str, tuple[float, ...]]
) -> Tumour:
    """A tumour from its events: arm -> copy number, shared by all clones (`trunk`) and per clone (`private`)."""
    names = tuple(f"{patient}.{letter}" for letter in "abcdefgh"[: len(private)])
    rows = [
        (name, arm, copies, word)
        for name, own in zip(names, private, strict=True)
        for word, arms in ((TRUNK, trunk), (PRIVATE, own))
        for arm, copies in arms.items()
    ]
    return Tumour(patient, kind, names, pd.DataFrame(rows, columns=["clone", "arm", "copy_number", "kind"]), shares)


def quiet_tumour(patient: str, kind: str = QUIET) -> Tumour:
    """Malignant cells without copy-number events (one clone), or with TUMOUR_FREE no malignant cells."""
    return tumour(patient, kind, {}, [{}] if kind == QUIET else [], {"": (1.0,) if kind == QUIET else ()})


# P1 is followed through therapy: `a` expands, `b` (17q gain: ERBB2) is lost, `c` (17q loss) emerges. Arms are spread over the
# patients, so that no arm tells one phase from another.
DEMO_TUMOURS: dict[str, Tumour] = {
    made.patient: made
    for made in (
        tumour(
            "P1",
            HAS_CLONES,
            {"8q": 4, "3p": 1, "20q": 3},
            [{"1q": 3, "5q": 1}, {"17q": 4, "11q": 1, "2q": 3}, {"17q": 1, "12q": 4, "4q": 1}],
            COURSES[3],
        ),
        tumour("P2", HAS_CLONES, {"9q": 1, "16q": 1, "2q": 3}, [{"10q": 1, "1q": 4}, {"15q": 1, "11p": 4}], {"": (0.6, 0.4)}),
        quiet_tumour("P3"),
        tumour("P4", HAS_CLONES, {"14q": 1, "19q": 4, "8q": 3}, [{"5q": 1, "7p": 3}], COURSES[1]),
        tumour("P5", HAS_CLONES, {"11q": 3, "4q": 1, "16p": 4}, [{"2p": 3, "22q": 1}], COURSES[1]),
        tumour("P6", HAS_CLONES, {"3q": 4, "9q": 1, "12q": 3}, [{"15q": 1, "1p": 1}], COURSES[1]),
        tumour("P7", HAS_CLONES, {"10q": 1, "19p": 3, "6q": 1}, [{"2q": 4, "3p": 1}, {"8q": 4, "1p": 1}], {"": (0.6, 0.4)}),
        tumour("P8", HAS_CLONES, {"20q": 3, "16q": 4, "14q": 1}, [{"7q": 3, "11p": 1}], COURSES[1]),
        tumour("P9", HAS_CLONES, {"5q": 1, "8q": 3, "17p": 1}, [{"20q": 4, "4q": 1}], COURSES[1]),
    )
}


def arm_of_genes(genes: pd.DataFrame, arms: pd.DataFrame) -> np.ndarray:
    """Arm of each gene (`1p` .. `22q`, `Xp` ..), by the middle of the gene; "" without a place or on no arm.

    Parameters
    ----------
    genes
        chromosome, start, end (bp).
    arms
        chromosome, arm (`p`, `q` or `1p`), start, end (bp).
    """
    middle = (genes["start"].to_numpy(dtype=float) + genes["end"].to_numpy(dtype=float)) / 2
    chromosome = genes["chromosome"].astype(str).to_numpy()
    out = np.full(len(genes), "", dtype=object)
    for row in arms.itertuples():
        inside = (chromosome == str(row.chromosome)) & (middle >= row.start) & (middle <= row.end)
        out[inside] = row.arm if str(row.arm).startswith(str(row.chromosome)) else f"{row.chromosome}{row.arm}"
    return out


def event_arms(arm: np.ndarray) -> list[str]:
    """Autosomal arms that hold at least MIN_ARM_SHARE of the placed autosomal genes, sorted; without NO_EVENT_ARMS."""
    counts = pd.Series(arm).value_counts()
    counts = counts[[name != "" and name[:-1].isdigit() for name in counts.index]]
    large = counts.index[counts >= MIN_ARM_SHARE * counts.sum()]
    return sorted(set(large) - set(NO_EVENT_ARMS))


def draw_tumour(patient: str, kind: str, arm: np.ndarray, rng: np.random.Generator) -> Tumour:
    """A tumour of one to three clones with N_TRUNK shared and N_PRIVATE own events each, no arm twice.

    Raises
    ------
    ValueError
        when fewer arms can carry an event than three clones need.
    """
    if kind != HAS_CLONES:
        return quiet_tumour(patient, kind)
    names = event_arms(arm)
    most = N_TRUNK + 3 * N_PRIVATE[1]
    if len(names) < most:
        raise ValueError(f"only {len(names)} chromosome arms hold enough genes, {most} are needed for copy-number events")
    n_clones = 1 + int(rng.choice(3, p=CLONE_NUMBER_ODDS))
    n_private = rng.integers(N_PRIVATE[0], N_PRIVATE[1] + 1, 3)
    order = list(rng.permutation(names))
    copies = rng.choice(COPY_NUMBERS, size=most, p=COPY_NUMBER_ODDS)
    events = [(str(name), int(copy)) for name, copy in zip(order, copies, strict=False)]
    trunk, rest = dict(events[:N_TRUNK]), events[N_TRUNK:]
    private = []
    for n in n_private[:n_clones]:
        private.append(dict(rest[:n]))
        rest = rest[n:]
    return tumour(patient, kind, trunk, private, COURSES[n_clones])


def clone_effects(made: Tumour, arm: np.ndarray) -> np.ndarray:
    """clones x genes: DOSAGE x ln(CN / 2) on all genes of an arm with an event, else 0."""
    effect = np.zeros((len(made.clones), len(arm)))
    for row in made.events.itertuples():
        effect[made.clones.index(row.clone), arm == row.arm] += DOSAGE * log(row.copy_number / 2)
    return effect


@dataclass(frozen=True)
class Plan:
    """What malignant cells of the whole cohort follow.

    phase: genes x phases, ln fold against PRE. loading: genes x modules, ln fold per unit of activity. marker: index of the
    marker gene, -1 where it is not simulated. panels: (panel, gene index, states that carry it, phase -> ln fold).
    """

    phase: pd.DataFrame
    loading: pd.DataFrame
    marker: int
    panels: tuple[tuple[str, int, np.ndarray, dict[str, float]], ...]

    def reserved(self) -> np.ndarray:
        """Genes that carry an effect of the plan; a patient's tumour effect leaves them alone."""
        out = (self.phase != 0).any(axis=1).to_numpy() | (self.loading != 0).any(axis=1).to_numpy()
        if self.marker >= 0:
            out[self.marker] = True
        return out


def genes_needed() -> int:
    """Background genes with MIN_LEVEL_CP10K in epithelium that `make_plan` uses."""
    return sum(up + down for up, down in PHASE_GENES.values()) + MODULE_SIZE * len(MODULES)


def make_plan(model: Model, rng: np.random.Generator) -> Plan:
    """Draw the genes of phases and modules among background genes that epithelium expresses and no epithelial program moves.

    Raises
    ------
    ValueError
        when fewer than `genes_needed` such genes are simulated.
    """
    genes, states = model.genes, model.states
    symbols = genes["symbol"].to_numpy()
    at = {symbol: index for index, symbol in enumerate(symbols)}
    epithelial = (states["lineage"] == "epithelial").to_numpy()
    level = np.exp(model.log_mean[epithelial]).min(axis=0) * 1e4
    own = model.programs.loc[model.programs["main_type"].isin(states.loc[epithelial, "main_type"]), "gene"]
    free = (genes["role"] == "background").to_numpy() & (level >= MIN_LEVEL_CP10K) & ~np.isin(symbols, list(own))
    if free.sum() < genes_needed():
        raise ValueError(f"{free.sum()} genes can carry effects of phases and modules, {genes_needed()} are needed: more n_genes")
    order = list(rng.permutation(np.flatnonzero(free)))

    phase = pd.DataFrame(0.0, index=symbols, columns=list(PHASE_GENES))
    for name, (up, down) in PHASE_GENES.items():
        chosen, order = order[: up + down], order[up + down :]
        sign = np.repeat([1.0, -1.0], [up, down])
        phase.iloc[chosen, phase.columns.get_loc(name)] = sign * rng.uniform(*PHASE_LOG2_FOLD, up + down) * log(2)
        for gene, fold in PHASE_NAMED_LOG2.get(name, {}).items():
            if gene in at:
                phase.loc[gene, name] = fold * log(2)
    loading = pd.DataFrame(0.0, index=symbols, columns=list(MODULES))
    for name in MODULES:
        named = [at[gene] for gene in MODULE_NAMED.get(name, ()) if gene in at]
        n = MODULE_SIZE - len(named)
        chosen, order = order[:n], order[n:]
        loading.iloc[[*chosen, *named], loading.columns.get_loc(name)] = rng.uniform(*MODULE_LOADING, n + len(named))
    panels = tuple(
        (panel, at[gene], states["main_type"].isin(where).to_numpy() if where else np.ones(len(states), dtype=bool), folds)
        for panel, names, where, folds in PANEL_EFFECTS
        for gene in names
        if gene in at
    )
    return Plan(phase, loading, at.get(MARKER, -1), panels)


def draw_activities(phase: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of `n` malignant cells: is the cell in the marker's stratum (n,), activity of each module (n x modules)."""
    positive = rng.random(n) < MARKER_SHARE.get(phase, MARKER_SHARE_ELSEWHERE)
    activity = np.empty((n, len(MODULES)))
    for column, (name, (_, _, moved, shift)) in enumerate(MODULES.items()):
        activity[:, column] = rng.normal(0.0, SAMPLE_ACTIVITY_SD) + ACTIVITY_SD[name] * rng.normal(size=n)
        activity[:, column] += shift * (phase == moved) + MARKER_ACTIVITY * positive * (name == MARKER_MODULE)
    return positive, activity


def plant(
    log_mean: np.ndarray,
    cells: pd.DataFrame,
    phase: str,
    made: Tumour,
    effects: np.ndarray,
    plan: Plan,
    rng: np.random.Generator,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Clone, phase, modules and marker on the malignant cells of a sample, panels on the types they name.

    Parameters
    ----------
    log_mean
        cells x genes, float32; not changed.
    cells
        state, is_malignant.
    effects
        of `clone_effects` for `made`.

    Returns
    -------
    log_mean, cells
        further columns clone ("" where not malignant), marker_positive, activity_<module> (NaN where not malignant).
    """
    malignant = np.flatnonzero(cells["is_malignant"].to_numpy(dtype=bool))
    n = len(malignant)
    out = log_mean.copy()
    clone = np.full(len(cells), "", dtype=object)
    positive, activity = draw_activities(phase, n, rng)
    if n:
        drawn = rng.choice(len(made.clones), size=n, p=made.share(phase))
        clone[malignant] = np.array(made.clones, dtype=object)[drawn]
        activity += made.carried()[drawn]
        out[malignant] += effects[drawn].astype(np.float32)
        out[malignant] += (activity @ plan.loading.to_numpy().T).astype(np.float32)
        if phase in plan.phase:
            out[malignant] += plan.phase[phase].to_numpy(dtype=np.float32)
        if plan.marker >= 0:
            out[malignant[positive], plan.marker] += np.float32(MARKER_LN_FOLD)
    state = cells["state"].to_numpy()
    for _, gene, where, folds in plan.panels:
        out[where[state], gene] += np.float32(folds.get(phase, 0.0))
    stratum = np.zeros(len(cells), dtype=bool)
    stratum[malignant] = positive
    every = np.full((len(cells), len(MODULES)), np.nan)
    every[malignant] = activity
    columns = {f"activity_{name}": every[:, column] for column, name in enumerate(MODULES)}
    return out, cells.assign(clone=clone, marker_positive=stratum, **columns)


# --- truth tables


def expected_ln_level(plan: Plan, phase: str) -> tuple[pd.Series, pd.Series]:
    """ln of each gene's expected factor in the malignant cells of a phase, and what it comes from ("" for no effect).

    A loading l on a normal activity (mean m, sd s) gives E[exp(l a)] = exp(l m + l^2 s^2 / 2); the marker's stratum mixes two.
    """
    symbols = plan.phase.index
    level = plan.phase[phase].copy() if phase in plan.phase else pd.Series(0.0, index=symbols)
    source = pd.Series("", index=symbols)
    source[(plan.phase != 0).any(axis=1)] = "phase"
    share = MARKER_SHARE.get(phase, MARKER_SHARE_ELSEWHERE)
    for name, (_, _, moved, shift) in MODULES.items():
        loading = plan.loading[name]
        variance = ACTIVITY_SD[name] ** 2 + SAMPLE_ACTIVITY_SD**2
        value = loading * shift * (phase == moved) + loading**2 * variance / 2
        if name == MARKER_MODULE:
            value += np.log(1 - share + share * np.exp(loading * MARKER_ACTIVITY))
        level += value
        source[loading != 0] = "module"
    if plan.marker >= 0:
        level.iloc[plan.marker] += np.log(1 - share + share * np.exp(MARKER_LN_FOLD))
        source.iloc[plan.marker] = "marker"
    epithelial = [(gene, folds) for panel, gene, where, folds in plan.panels if where.all()]
    for gene, folds in epithelial:
        level.iloc[gene] += folds.get(phase, 0.0)
        source.iloc[gene] = "panel"
    return level, source


def expression_table(plan: Plan, phases: list[str]) -> pd.DataFrame:
    """Planted change of malignant cells for each ordered pair of phases: contrast, gene, log2fc, source; changed genes only."""
    columns = ["contrast", "gene", "log2fc", "source"]
    levels = {phase: expected_ln_level(plan, phase) for phase in phases}
    made = []
    for a in phases:
        for b in phases:
            fold = (levels[a][0] - levels[b][0]) / log(2)
            moved = fold.abs() > 1e-9
            if a != b and moved.any():
                table = pd.DataFrame({"contrast": f"{a}_vs_{b}", "gene": fold.index, "log2fc": fold, "source": levels[a][1]})
                made.append(table[moved.to_numpy()].sort_values("gene"))
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=columns)


def module_table(plan: Plan) -> pd.DataFrame:
    """gene, module, loading (ln fold per unit of activity), trait, sign (of the trait's rank correlation)."""
    made = []
    for name, (trait, sign, _, _) in MODULES.items():
        loading = plan.loading[name]
        loading = loading[loading != 0].sort_index()
        table = pd.DataFrame({"gene": loading.index, "module": name, "loading": loading.to_numpy()})
        made.append(table.assign(trait=trait, sign=sign))
    return pd.concat(made, ignore_index=True)


def marker_table(plan: Plan) -> pd.DataFrame:
    """marker, phase, share (of malignant cells in the stratum), gene, log2fc (stratum against the other cells of the phase)."""
    loading = plan.loading[MARKER_MODULE]
    loading = loading[loading != 0].sort_index() * MARKER_ACTIVITY / log(2)
    table = pd.DataFrame({"gene": loading.index, "log2fc": loading.to_numpy()})
    table.insert(0, "share", MARKER_SHARE[MARKER_PHASE])
    table.insert(0, "phase", MARKER_PHASE)
    table.insert(0, "marker", MARKER)
    return table if plan.marker >= 0 else table.iloc[:0]


def panel_table(plan: Plan, model: Model, phases: list[str]) -> pd.DataFrame:
    """panel, gene, cell_type, contrast, direction (up, down), ln_fold: planted in genes of panels, each ordered pair of phases.

    Restricted to types that express the gene (0.3 counts per 10,000 or more in the mean of the subtypes); `tumour`: malignant
    cells.
    """
    rows: list[tuple[str, str, str, dict[str, float]]] = []
    states = model.states
    for panel, gene, where, folds in plan.panels:
        level = pd.Series(np.exp(model.log_mean[:, gene]) * 1e4 * states["share_in_type"]).groupby(states["main_type"]).sum()
        carries = sorted(set(states.loc[where, "main_type"]) & set(level.index[level >= 0.3]))
        rows += [(panel, model.genes["symbol"].iloc[gene], name, folds) for name in carries]
    for name, named in PHASE_NAMED_LOG2.items():
        rows += [("adc", gene, "tumour", {name: fold * log(2)}) for gene, fold in named.items() if gene in plan.phase.index]
    made = []
    for panel, gene, name, folds in rows:
        for a in phases:
            for b in phases:
                fold = folds.get(a, 0.0) - folds.get(b, 0.0)
                if fold:
                    made.append((panel, gene, name, f"{a}_vs_{b}", "up" if fold > 0 else "down", fold))
    return pd.DataFrame(made, columns=["panel", "gene", "cell_type", "contrast", "direction", "ln_fold"])


def signal_table(plan: Plan, phases: list[str]) -> pd.DataFrame:
    """pathway, contrast, direction (up, down), ln_fold of its ligands, senders, receiver: planted changes of communication.

    One row per pathway and ordered pair of phases; senders are joined by commas, "" stands for all types.
    """
    folds = {panel: folds for panel, _, _, folds in plan.panels}
    rows = []
    for pathway, panel, senders, receiver in SIGNALS:
        for a in phases:
            for b in phases:
                fold = folds.get(panel, {}).get(a, 0.0) - folds.get(panel, {}).get(b, 0.0)
                if fold:
                    rows.append((pathway, f"{a}_vs_{b}", "up" if fold > 0 else "down", fold, ",".join(senders), receiver))
    return pd.DataFrame(rows, columns=["pathway", "contrast", "direction", "ln_fold", "senders", "receiver"])


def clone_table(cells: pd.DataFrame, design: pd.DataFrame, tumours: dict[str, Tumour]) -> pd.DataFrame:
    """One row per clone and sample: n (good cells), share (of the sample's good malignant cells), expected_share.

    Parameters
    ----------
    cells
        truth of all droplets: sample, clone, is_doublet, is_poor.
    design
        sample, patient, phase.
    """
    good = cells[~(cells["is_doublet"] | cells["is_poor"])]
    n = good.groupby(["sample", "clone"]).size()
    rows = [
        (row.patient, clone, row.sample, row.phase, int(n.get((row.sample, clone), 0)), expected)
        for row in design.itertuples()
        for clone, expected in zip(tumours[row.patient].clones, tumours[row.patient].share(row.phase), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["patient", "clone", "sample", "phase", "n", "expected_share"])
    total = table.groupby("sample")["n"].transform("sum")
    table.insert(5, "share", table["n"] / total.where(total > 0))
    return table.sort_values(["patient", "clone", "sample"], ignore_index=True)


def change_class(share_a: float, share_b: float) -> str:
    """Word for the change of a clone from share `share_b` to share `share_a`; "" when there is none."""
    if share_a == share_b:
        return ""
    if share_b == 0:
        return "emerging"
    if share_a == 0:
        return "lost"
    return "expanding" if share_a > share_b else "shrinking"


def change_table(tumours: dict[str, Tumour], phases: dict[str, list[str]]) -> pd.DataFrame:
    """patient, clone, contrast, difference (of expected shares), expected_class; each ordered pair of a patient's phases."""
    rows = []
    for patient, made in sorted(tumours.items()):
        for a in phases[patient]:
            for b in phases[patient]:
                for index, clone in enumerate(made.clones if a != b else ()):
                    share_a, share_b = float(made.share(a)[index]), float(made.share(b)[index])
                    rows.append((patient, clone, f"{a}_vs_{b}", share_a - share_b, change_class(share_a, share_b)))
    return pd.DataFrame(rows, columns=["patient", "clone", "contrast", "difference", "expected_class"])
