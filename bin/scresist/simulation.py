"""Draw a single-cell cohort with planted truth: kernels of SIMULATE_COHORT.

The order of the generator: genes -> baseline -> programs of types (one log-mean row per state) -> cells of a sample ->
`plant_*` steps on a log-mean or rate matrix (cells x genes) -> Poisson counts. Each `plant_*` takes the matrix and the cell
table and returns both; a further effect is one more such step, and one more rows of the truth tables.

Noise: Poisson counts of gamma-distributed rates (negative binomial), as in Splatter (Zappia 2017, Genome Biology 18:174).
All levels named *_CP10K are expected counts per 10,000. Numbers without another source were chosen so that the figures of
a sample (median genes, % MT, Scrublet AUROC) look like 10x tumour samples; tests hold the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

# 9 patients, 11 samples as in the study; each phase with two samples or more lies in two batches or more, so that batch and
# phase are not aliased. POST-4 has too few cells to be kept (fewer than 50). PRE-R-2 fails the criterion on genes, POST-2 that on
# saturation, PRE-3 that on reads in cells. size: factor on the mean number of droplets; depth: on library size; epithelial: on
# the odds of the epithelial share. P1, whose clones are followed, gives larger samples: about 150 malignant cells each.
DEMO_DESIGN = pd.DataFrame(
    [
        ("PRE-1", "P1", "PRE", "b1", 1.8, None, 1.0, 1.2, "PR", "no", 78.2, 88.1),
        ("PRE-2", "P2", "PRE", "b2", 1.3, None, 1.1, 1.0, "PR", "no", 74.9, 85.6),
        ("PRE-3", "P3", "PRE", "b3", 1.2, None, 0.9, 1.0, "CR", "no", 81.3, 64.0),
        ("PRE-4", "P4", "PRE", "b1", 1.0, None, 1.0, 1.0, "PR", "no", 69.8, 90.3),
        ("PRE-R-1", "P5", "PRE-R", "b1", 1.3, None, 1.0, 1.0, "PD", "no", 72.5, 83.4),
        ("PRE-R-2", "P6", "PRE-R", "b2", 1.2, None, 0.36, 1.0, "PD", "no", 86.0, 79.9),
        ("RES-1", "P1", "RES", "b2", 2.2, None, 1.0, 2.6, "PR", "yes", 76.4, 87.2),
        ("POST-1", "P1", "POST", "b3", 2.2, None, 1.1, 1.9, "PR", "yes", 73.0, 84.5),
        ("POST-2", "P7", "POST", "b1", 1.8, None, 1.0, 1.0, "PR", "yes", 52.7, 86.9),
        ("POST-3", "P8", "POST", "b2", 1.1, None, 0.9, 1.0, "CR", "yes", 79.6, 82.2),
        ("POST-4", "P9", "POST", "b3", 1.0, 35, 0.9, 1.0, "PR", "yes", 84.1, 75.8),
    ],
    columns=[
        "sample",
        "patient",
        "phase",
        "batch",
        "size",
        "n_cells",
        "depth",
        "epithelial",
        "response",
        "treated",
        "saturation_pct",
        "reads_in_cells_pct",
    ],
)

# Main type -> (share of cells at baseline, library factor, planted subtypes with their share within the type).
TYPES: dict[str, tuple[float, float, dict[str, float]]] = {
    "B": (0.10, 0.85, {"Plasma": 0.3, "Naive_B": 0.3, "Memory_B": 0.4}),
    "CD4_T": (0.12, 0.85, {"Treg": 0.3, "Naive_CD4": 0.4, "Tfh": 0.3}),
    "CD8_T": (0.10, 0.85, {"Effector_CD8": 0.55, "Exhausted_CD8": 0.45}),
    "NK": (0.06, 0.85, {"CD56bright_NK": 0.4, "CD56dim_NK": 0.6}),
    "Macrophage": (0.08, 1.15, {"SPP1_Macrophage": 0.5, "FOLR2_Macrophage": 0.5}),
    "Monocyte": (0.06, 1.0, {"Classical_Monocyte": 0.65, "Nonclassical_Monocyte": 0.35}),
    "DC": (0.05, 1.0, {"cDC1": 0.25, "cDC2": 0.45, "LAMP3_DC": 0.3}),
    "Mast": (0.03, 0.85, {"Mast": 1.0}),
    "Fibroblast": (0.08, 1.1, {"Myofibroblast": 0.35, "Pericyte": 0.3, "Inflammatory_CAF": 0.35}),
    "Endothelial": (0.06, 1.05, {"Lymphatic_endothelial": 0.25, "Venous_endothelial": 0.45, "Arterial_endothelial": 0.3}),
    "Epithelial": (0.26, 1.35, {"Secretory": 0.6, "Enterocyte": 0.4}),
}
# Phase -> main type -> ln factor on the odds of the share; phases that are not named keep the baseline.
PHASE_SHIFTS: dict[str, dict[str, float]] = {
    "RES": {"Epithelial": -0.7, "B": 0.4, "CD4_T": 0.4, "CD8_T": 0.6, "NK": 0.4, "DC": 0.3},
    # gains and losses in balance: the shares of the types that are not named stay as they were
    "POST": {"B": -0.8, "CD8_T": -0.9, "Fibroblast": 0.9},
    "PRE-R": {"CD8_T": -0.4, "Macrophage": 0.35, "Epithelial": 0.15},
}
# Types that a phase lacks altogether.
ABSENT_TYPES: dict[str, tuple[str, ...]] = {"RES": ("Mast",)}
PROPORTION_CONCENTRATION = 400.0  # of the Dirichlet of a sample's shares: larger = samples more alike
MALIGNANT_SHARE = 0.8  # of epithelial cells

# Genes that later steps and panels ask for, whether or not they are markers.
PANEL_TEXT = (
    "ERBB2 CST3 CTSB CTSS MUC3A MUC17 REG1A FABP1 MKI67 TOP2A PCNA STMN1 HLA-A HLA-B HLA-C HLA-E B2M HLA-DRA HLA-DRB1 HLA-DPA1 "
    "HLA-DPB1 TGFB1 TGFB2 TGFB3 TGFBR1 TGFBR2 EGF AREG EREG HBEGF TGFA EGFR ERBB3 FGF1 FGF2 FGF7 FGFR1 FGFR2 CXCL9 CXCL10 CXCL11 "
    "CXCL16 CXCR3 CXCR4 CXCR6 IFNG IFNGR1 IFNGR2 STAT1 IRF1 PDCD1 CD274 PDCD1LG2 TIGIT PVR NECTIN2 HAVCR2 LGALS9 LAG3 CTLA4 CD80 "
    "CD86 CD28 PTPRC VIM LYZ NAMPT CD74 ACTB GAPDH EEF1A1 TMSB4X FTH1 FTL MALAT1 TFF1 TFF2 TFF3 APOA1 APOA4 FABP2 GDF15 VEGFA KDR"
)
PANEL = tuple(PANEL_TEXT.split())
HAEMOGLOBIN = ("HBA1", "HBA2", "HBB", "HBD", "HBG1", "HBG2", "HBM", "HBQ1", "HBZ")
CYTOSOLIC_RIBOSOMAL = r"RP(?:[LS]\d+[AXYL]?|LP[0-2]|SA|[LS]\d+Y[12]|L3L|L22L1|L36AL|L39L|S27L|S27A)"
# Symbols that are not message-like (clones, small RNAs, antisense): they would make an odd background.
NOT_BACKGROUND = (
    r"LOC\d|LINC|MIR|SNOR|SCARNA|RNU|RN7|RNA5|RNY|TRN|MT-|OR\d|IG[HKL][VDJC]|TR[ABDG][VDJC]|.*-(?:AS|DT|IT|OT)\d*$|.*P\d+$"
)
MIN_BACKGROUND_LENGTH = 2000  # bp; drops small RNAs whose names say nothing

OFF_CP10K = 0.04  # of a marker outside its types
MARKER_CP10K = 6.0
SUBTYPE_MARKER_CP10K = 6.0
ABUNDANT_CP10K = 12.0
ABUNDANT_TEXT = "S100A8 S100A9 LYZ COL1A1 COL1A2 DCN LUM TPSAB1 TPSB2 CPA3 JCHAIN GNLY NKG7 CD74 C1QA C1QB SPP1 ACTA2 TAGLN"
ABUNDANT = frozenset(ABUNDANT_TEXT.split())
SCARCE_CP10K = 2.5
SCARCE_TEXT = "CD4 FOXP3 CD40LG CXCR5 KLRF1 XCR1 CLEC9A CCR7 KIT CD163 BANK1 TNFRSF13B PROX1 XCL1 FCER2 SEMA3G NCAM1"
SCARCE = frozenset(SCARCE_TEXT.split())
MARKER_SPREAD = 0.25  # sd of ln level between markers
# Known expression beyond the marker table: gene -> main types (or lineages) -> counts per 10,000.
KNOWN_CP10K: dict[str, dict[str, float]] = {
    **{gene: {"B": 12, "Macrophage": 15, "Monocyte": 10, "DC": 25} for gene in ("HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1")},
    "CD74": {"B": 6, "Macrophage": 8, "Monocyte": 4},
    "LYZ": {"Macrophage": 6, "DC": 3},
    "CST3": {"Macrophage": 12, "Monocyte": 10, "DC": 12, "stromal": 4, "Epithelial": 3},
    "CTSB": {"Macrophage": 12, "Monocyte": 5, "DC": 4, "stromal": 2, "Epithelial": 3},
    "CD68": {"Monocyte": 1.0},
    "PTPRC": {"immune": 5},
    "VIM": {"immune": 8, "stromal": 20},
    "ERBB2": {"Epithelial": 4},
    "ERBB3": {"Epithelial": 3},
    "EGFR": {"Epithelial": 2, "Fibroblast": 1},
    "EGF": {"Epithelial": 0.8},
    "AREG": {"Epithelial": 3, "Mast": 3},
    "TFF1": {"Epithelial": 4},
    "TFF3": {"Epithelial": 4},
    "FABP1": {"Epithelial": 0.5},
    "MUC3A": {"Epithelial": 0.6},
    "MUC17": {"Epithelial": 0.5},
    "REG1A": {"Epithelial": 0.5},
    # lymphocytes are its main source: their change with the phase is the change of the pathway
    "TGFB1": {"B": 4, "CD4_T": 4, "CD8_T": 4, "NK": 4, "immune": 0.4, "stromal": 0.4, "Epithelial": 0.4},
    "TGFBR1": {"stromal": 1.5, "Endothelial": 4, "Epithelial": 1.5, "immune": 0.8},
    "TGFBR2": {"stromal": 3, "Endothelial": 6, "Epithelial": 1.5, "immune": 1.5},
    "FGF2": {"Fibroblast": 1.5},
    "FGF7": {"Fibroblast": 2},
    "FGFR1": {"Fibroblast": 3, "Epithelial": 1},
    "FGFR2": {"Epithelial": 1.5},
    "CXCL9": {"Macrophage": 3},
    "CXCL10": {"Macrophage": 3, "DC": 1.5},
    "CXCL11": {"Macrophage": 1.5},
    "CXCR3": {"CD8_T": 2, "CD4_T": 1, "NK": 1},
    "IFNG": {"CD8_T": 2, "NK": 2},
    "TIGIT": {"CD8_T": 1.5, "NK": 1},
    "CD274": {"Macrophage": 1, "DC": 1.5, "Epithelial": 0.6},
    "PVR": {"Epithelial": 1.5},
    "MKI67": {"Epithelial": 0.6},
    "TOP2A": {"Epithelial": 0.6},
}
EVERYWHERE_CP10K = {"B2M": 40.0, "HLA-A": 12.0, "HLA-B": 15.0, "HLA-C": 12.0, "HLA-E": 5.0, "MALAT1": 120.0, "ACTB": 40.0}
EVERYWHERE_CP10K |= {"GAPDH": 20.0, "EEF1A1": 60.0, "TMSB4X": 60.0, "FTH1": 40.0, "FTL": 35.0}

MT_SHARE = 0.05  # of counts in a healthy cell
RIBOSOMAL_SHARE = 0.13
BACKGROUND_SD = 1.3  # of ln abundance between background genes
TYPE_GENES = 45  # further genes per main type; lineage and doublet group share LINEAGE_GENES each
LINEAGE_GENES = 40
SUBTYPE_GENES = 30
TYPE_LN_FOLD = (1.7, 0.5)  # mean, sd
SUBTYPE_LN_FOLD = (1.7, 0.4)
LIBRARY_MEDIAN = 4200.0  # counts per cell, before the factors of type and sample
LIBRARY_SD = 0.32  # of ln library size within a type
MT_SD = 0.25  # of ln MT rate between cells
DISPERSION_RANGE = (0.15, 0.6)  # of the gamma rates (1/shape), one per gene
TUMOUR_GENES = 160  # genes that a patient's malignant cells shift
TUMOUR_LN_SD = 0.9
BATCH_LN_SD = 0.22
SAMPLE_LN_SD = 0.06
DOUBLET_RATE = (0.03, 0.06)
DOUBLET_CAPTURE = (0.75, 0.95)  # of the summed counts of both cells that a doublet yields
AMBIENT_SHARE = (0.02, 0.08)
POOR_RATE = (0.03, 0.06)
POOR_COUNTS = (60.0, 330.0)  # expected counts of a broken cell; both rules of FLAG_CELLS (200 genes, 500 counts) see it
POOR_MT = (0.28, 0.60)

HETEROTYPIC = "heterotypic"
HOMOTYPIC = "homotypic"
POOR_LOW_COUNTS = "low_counts"
POOR_HIGH_MT = "high_mt"


@dataclass(frozen=True)
class Model:
    """What all samples share.

    genes: one row per gene (symbol, gene_id, chromosome, start, end, role). states: one row per subtype (main_type, subtype,
    lineage, doublet_group, share, library). log_mean: states x genes, ln expected share of counts. dispersion: per gene.
    programs: long table of the planted levels (main_type, subtype, gene, role, log_fold).
    """

    genes: pd.DataFrame
    states: pd.DataFrame
    log_mean: np.ndarray
    dispersion: np.ndarray
    programs: pd.DataFrame


def choose_genes(positions: pd.DataFrame, markers: pd.DataFrame, n_genes: int, n_background_min: int) -> pd.DataFrame:
    """`n_genes` rows of the position table with a column `role`, in genome order.

    All markers, panel, haemoglobin, ribosomal and mitochondrial protein genes that the table knows; the rest evenly along the
    genome, so that windows of neighbouring genes are filled.

    Raises
    ------
    ValueError
        when `n_genes` leaves fewer than `n_background_min` background genes (the programs use them), or is more than there are.
    """
    symbol = positions["symbol"]
    is_mt = (positions["chromosome"] == "MT") & ~symbol.str.startswith("MT-RNR")  # 10x references leave the rRNAs out
    role = pd.Series("", index=positions.index)
    role[symbol.isin(set(PANEL) | set(KNOWN_CP10K) | set(EVERYWHERE_CP10K))] = "panel"
    role[symbol.isin(HAEMOGLOBIN)] = "haemoglobin"
    role[symbol.str.fullmatch(CYTOSOLIC_RIBOSOMAL)] = "ribosomal"
    role[is_mt] = "mitochondrial"
    role[symbol.isin(markers["gene"])] = "marker"
    background = (
        (role == "")
        & positions["start"].notna()
        & (positions["gene_id"] != "")
        & (positions["chromosome"] != "MT")
        & (positions["chromosome"] != "Y")
        & (positions["end"] - positions["start"] >= MIN_BACKGROUND_LENGTH)
        & ~symbol.str.match(NOT_BACKGROUND)
    )
    n_fixed = int((role != "").sum())
    n_background = n_genes - n_fixed
    if n_background < n_background_min or n_background > background.sum():
        raise ValueError(
            f"n_genes is {n_genes}: choose {n_fixed + n_background_min} to {n_fixed + int(background.sum())} "
            f"({n_fixed} genes are always simulated, {int(background.sum())} can fill up)"
        )
    candidates = np.flatnonzero(background.to_numpy())
    picked = candidates[np.linspace(0, len(candidates) - 1, n_background).round().astype(int)]
    role.iloc[picked] = "background"
    chosen = positions.assign(role=role)
    return chosen[chosen["role"] != ""].reset_index(drop=True)


def state_table(markers: pd.DataFrame) -> pd.DataFrame:
    """One row per planted subtype; lineage and doublet group come from the marker table.

    Raises
    ------
    ValueError
        when the marker table lacks a type or subtype that is planted.
    """
    home = markers.drop_duplicates("main_type").set_index("main_type")
    known = set(zip(markers["main_type"], markers["subtype"], strict=True))
    missing = [name for name in TYPES if name not in home.index]
    missing += [s for t, (_, _, subs) in TYPES.items() for s in subs if s != t and (t, s) not in known]
    if missing:
        raise ValueError(f"the marker table lacks {', '.join(missing)}")
    rows = [
        {
            "main_type": name,
            "subtype": subtype,
            "lineage": home.loc[name, "lineage"],
            "doublet_group": home.loc[name, "doublet_group"],
            "share_in_type": share,
            "library": library,
        }
        for name, (_, library, subtypes) in TYPES.items()
        for subtype, share in subtypes.items()
    ]
    return pd.DataFrame(rows)


def baseline(genes: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """ln expected share of counts per gene, before any type is planted; shares of the classes as in MT_SHARE and the like."""
    role = genes["role"].to_numpy()
    share = np.zeros(len(genes))
    background = role == "background"
    weights = np.exp(rng.normal(0.0, BACKGROUND_SD, len(genes)))
    for name, total, spread in (("mitochondrial", MT_SHARE, 0.6), ("ribosomal", RIBOSOMAL_SHARE, 0.6)):
        chosen = role == name
        share[chosen] = total * weights[chosen] ** (spread / BACKGROUND_SD) / (weights[chosen] ** (spread / BACKGROUND_SD)).sum()
    quiet = np.isin(role, ("marker", "haemoglobin"))
    share[quiet] = OFF_CP10K / 1e4 * weights[quiet] ** 0.2
    panel = role == "panel"
    share[panel] = 0.3 / 1e4 * weights[panel] ** 0.3
    for gene, level in EVERYWHERE_CP10K.items():
        share[(genes["symbol"] == gene).to_numpy()] = level / 1e4
    for gene in KNOWN_CP10K:
        share[(genes["symbol"] == gene).to_numpy()] = 2 * OFF_CP10K / 1e4
    share[background] = weights[background] / weights[background].sum() * (1 - share[~background].sum())
    return np.log(share)


def background_needed(states: pd.DataFrame) -> int:
    """Background genes that the programs and one tumour effect beside them need."""
    return sum(n for _, _, n, _ in program_blocks(states)) + TUMOUR_GENES


def build_model(genes: pd.DataFrame, states: pd.DataFrame, markers: pd.DataFrame, rng: np.random.Generator) -> Model:
    """States with their programs on `genes` (from `choose_genes`); depends on the seed and the tables, never on the samples."""
    base = baseline(genes, rng)
    log_mean, programs = plant_types(base, genes, states, markers, rng)
    return Model(genes, states, log_mean, rng.uniform(*DISPERSION_RANGE, len(genes)), programs)


def program_blocks(states: pd.DataFrame) -> list[tuple[str, str, int, tuple[float, float]]]:
    """Programs to plant, shared ones first: column of `states`, its value, number of genes, (mean, sd) of the ln fold.

    Types of one lineage or doublet group (T and NK, myeloid) share genes, which makes them harder to tell apart.
    """
    blocks = [("lineage", name, LINEAGE_GENES, TYPE_LN_FOLD) for name in sorted(set(states["lineage"]))]
    shared = sorted(g for g, n in states.groupby("doublet_group")["main_type"].nunique().items() if n > 1)
    blocks += [("doublet_group", name, LINEAGE_GENES, TYPE_LN_FOLD) for name in shared]
    blocks += [("main_type", name, TYPE_GENES, TYPE_LN_FOLD) for name in TYPES]
    return blocks + [("subtype", name, SUBTYPE_GENES, SUBTYPE_LN_FOLD) for name in states["subtype"] if name not in TYPES]


def plant_types(
    base: np.ndarray, genes: pd.DataFrame, states: pd.DataFrame, markers: pd.DataFrame, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Log-mean of every state: markers at their level, known genes, and further genes of lineage, doublet group, type, subtype.

    Returns states x genes (ln share of counts, rows summing to one) and the long table of planted folds.
    """
    column = {symbol: index for index, symbol in enumerate(genes["symbol"])}
    log_mean = np.tile(base, (len(states), 1))
    role_of = {}

    def raise_to(rows: np.ndarray, gene: str, cp10k: float, role: str) -> None:
        if gene in column:
            level = np.log(cp10k / 1e4)
            log_mean[rows, column[gene]] = np.maximum(log_mean[rows, column[gene]], level)
            role_of.update({(row, column[gene]): role for row in np.flatnonzero(rows)})

    positive = markers[markers["role"] != "negative"]
    for row in positive.itertuples():
        level = MARKER_CP10K if row.role != "subtype" else SUBTYPE_MARKER_CP10K
        level = ABUNDANT_CP10K if row.gene in ABUNDANT else SCARCE_CP10K if row.gene in SCARCE else level
        level *= np.exp(rng.normal(0.0, MARKER_SPREAD))
        rows = (states["main_type"] == row.main_type).to_numpy()
        if row.role == "subtype":
            rows &= (states["subtype"] == row.subtype).to_numpy()
        raise_to(rows, row.gene, level, row.role)
    for gene, levels in KNOWN_CP10K.items():
        for where, level in levels.items():
            rows = ((states["main_type"] == where) | (states["lineage"] == where)).to_numpy()
            raise_to(rows, gene, level, "known")

    free = list(rng.permutation(np.flatnonzero((genes["role"] == "background").to_numpy())))
    for level, name, n, (mean, sd) in program_blocks(states):
        chosen, free = free[:n], free[n:]
        rows = (states[level] == name).to_numpy()
        log_mean[np.ix_(rows, chosen)] += rng.normal(mean, sd, n)
        role_of.update({(row, gene): f"{level}_gene" for row in np.flatnonzero(rows) for gene in chosen})

    log_mean -= np.log(np.exp(log_mean).sum(axis=1, keepdims=True))
    planted = sorted(role_of)
    rows, columns = np.array(planted).T
    programs = pd.DataFrame(
        {
            "main_type": states["main_type"].to_numpy()[rows],
            "subtype": states["subtype"].to_numpy()[rows],
            "gene": genes["symbol"].to_numpy()[columns],
            "role": [role_of[key] for key in planted],
            "log_fold": log_mean[rows, columns] - base[columns],
        }
    )
    return log_mean, programs


def proportions(phase: str, rng: np.random.Generator, epithelial: float = 1.0) -> pd.Series:
    """Expected shares of the main types in one sample: baseline, shifted by phase, varied between samples (Dirichlet).

    `epithelial` multiplies the odds of the epithelial share before the shares are varied. Types of ABSENT_TYPES have none.
    """
    share = pd.Series({name: values[0] for name, values in TYPES.items()})
    share *= np.exp(pd.Series(PHASE_SHIFTS.get(phase, {}), dtype=float).reindex(share.index).fillna(0.0))
    share["Epithelial"] *= epithelial
    share /= share.sum()
    drawn = pd.Series(rng.dirichlet(PROPORTION_CONCENTRATION * share.to_numpy()), index=share.index)
    drawn[list(ABSENT_TYPES.get(phase, ()))] = 0.0
    return drawn / drawn.sum()


def expected_proportions(phase: str) -> pd.Series:
    """Shares of the main types that the samples of a phase vary around."""
    share = pd.Series({name: values[0] for name, values in TYPES.items()})
    share *= np.exp(pd.Series(PHASE_SHIFTS.get(phase, {}), dtype=float).reindex(share.index).fillna(0.0))
    share[list(ABSENT_TYPES.get(phase, ()))] = 0.0
    return share / share.sum()


def share_table(phases: list[str]) -> pd.DataFrame:
    """main_type, contrast, share_a, share_b, log_ratio (ln; empty where a share is 0) for each ordered pair of phases."""
    made = []
    for a in phases:
        for b in (name for name in phases if name != a):
            share_a, share_b = expected_proportions(a), expected_proportions(b)
            ratio = np.log(share_a.where(share_a > 0) / share_b.where(share_b > 0))
            made.append(pd.DataFrame({"contrast": f"{a}_vs_{b}", "share_a": share_a, "share_b": share_b, "log_ratio": ratio}))
    columns = ["main_type", "contrast", "share_a", "share_b", "log_ratio"]
    return pd.concat(made).rename_axis("main_type").reset_index()[columns] if made else pd.DataFrame(columns=columns)


def draw_cells(
    states: pd.DataFrame, shares: pd.Series, n: int, depth: float, malignant_share: float, rng: np.random.Generator
) -> pd.DataFrame:
    """`n` cells: state (row of `states`), is_malignant (that share of epithelial cells), library (expected counts)."""
    probability = states["main_type"].map(shares).to_numpy() * states["share_in_type"].to_numpy()
    state = rng.choice(len(states), size=n, p=probability / probability.sum())
    library = LIBRARY_MEDIAN * depth * states["library"].to_numpy()[state] * np.exp(rng.normal(0.0, LIBRARY_SD, n))
    malignant = (states["lineage"].to_numpy()[state] == "epithelial") & (rng.random(n) < malignant_share)
    return pd.DataFrame({"state": state, "is_malignant": malignant, "library": library})


def tumour_effect(genes: pd.DataFrame, reserved: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """ln fold per gene of one patient's malignant cells; zero but for TUMOUR_GENES background genes that are not `reserved`."""
    effect = np.zeros(len(genes))
    free = (genes["role"] == "background").to_numpy() & ~reserved
    chosen = rng.choice(np.flatnonzero(free), TUMOUR_GENES, replace=False)
    effect[chosen] = rng.normal(0.0, TUMOUR_LN_SD, TUMOUR_GENES)
    return effect


def batch_effect(genes: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """ln fold per gene of one batch, in all cells."""
    return rng.normal(0.0, BATCH_LN_SD, len(genes))


def plant_tumour(log_mean: np.ndarray, cells: pd.DataFrame, effect: np.ndarray) -> np.ndarray:
    """Add the patient's tumour effect to the malignant cells."""
    return log_mean + np.outer(cells["is_malignant"].to_numpy(dtype=np.float32), effect.astype(np.float32))


def plant_batch(log_mean: np.ndarray, effect: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the batch effect and a small effect of the sample to all cells."""
    return log_mean + (effect + rng.normal(0.0, SAMPLE_LN_SD, len(effect))).astype(np.float32)


def to_rates(log_mean: np.ndarray, library: np.ndarray) -> np.ndarray:
    """Expected counts, cells x genes: rows sum to `library`."""
    rates = np.exp(log_mean - log_mean.max(axis=1, keepdims=True))
    return rates * (library[:, None] / rates.sum(axis=1, keepdims=True)).astype(np.float32)


def plant_noise(rates: np.ndarray, dispersion: np.ndarray, is_mt: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma variation of the rates per gene and cell (mean 1, variance = dispersion), and one MT factor per cell."""
    shape = np.broadcast_to((1.0 / dispersion).astype(np.float32), rates.shape)
    noisy = rates * rng.standard_gamma(shape, dtype=np.float32) * dispersion.astype(np.float32)
    noisy[:, is_mt] *= np.exp(rng.normal(0.0, MT_SD, len(rates)))[:, None].astype(np.float32)
    return noisy


def plant_doublets(
    rates: np.ndarray, cells: pd.DataFrame, states: pd.DataFrame, n_doublets: int, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Turn the last 2 x `n_doublets` rows into `n_doublets` droplets of two cells.

    A doublet yields DOUBLET_CAPTURE of the sum of both. It is heterotypic when the two cells belong to different doublet groups
    (CD4 with CD8 T, macrophage with monocyte look like one cell). `state` and further columns are those of the cell with more
    counts, `state_2` is the other.
    """
    n = len(cells) - 2 * n_doublets
    kept = cells.iloc[:n].assign(is_doublet=False, doublet_kind="", state_2=-1)
    if n_doublets == 0:
        return rates, kept
    first, second = np.arange(n, n + n_doublets), np.arange(n + n_doublets, n + 2 * n_doublets)
    swap = rates[second].sum(axis=1) > rates[first].sum(axis=1)
    major, minor = np.where(swap, second, first), np.where(swap, first, second)
    capture = rng.uniform(*DOUBLET_CAPTURE, n_doublets).astype(np.float32)
    summed = (rates[major] + rates[minor]) * capture[:, None]
    group = states["doublet_group"].to_numpy()
    state = cells["state"].to_numpy()
    pairs = cells.iloc[major].assign(
        library=(cells["library"].to_numpy()[major] + cells["library"].to_numpy()[minor]) * capture,
        is_doublet=True,
        doublet_kind=np.where(group[state[major]] == group[state[minor]], HOMOTYPIC, HETEROTYPIC),
        state_2=state[minor],
    )
    return np.vstack([rates[:n], summed]), pd.concat([kept, pairs], ignore_index=True)


def plant_poor(
    rates: np.ndarray, cells: pd.DataFrame, is_mt: np.ndarray, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Break a share `rate` of the singlets: half keep few counts, half leak their cytoplasm and keep MT transcripts."""
    singlets = np.flatnonzero(~cells["is_doublet"].to_numpy())
    chosen = rng.choice(singlets, size=round(rate * len(singlets)), replace=False)
    kind = np.full(len(cells), "", dtype=object)
    kind[chosen[::2]], kind[chosen[1::2]] = POOR_LOW_COUNTS, POOR_HIGH_MT
    low, leaky = np.flatnonzero(kind == POOR_LOW_COUNTS), np.flatnonzero(kind == POOR_HIGH_MT)
    rates = rates.copy()
    rates[low] *= (rng.uniform(*POOR_COUNTS, len(low)) / np.maximum(rates[low].sum(axis=1), 1e-9))[:, None].astype(np.float32)
    share = rng.uniform(*POOR_MT, len(leaky))
    mt = rates[np.ix_(leaky, is_mt)].sum(axis=1)
    rest = rates[np.ix_(leaky, ~is_mt)].sum(axis=1)
    rates[np.ix_(leaky, is_mt)] *= (share / (1 - share) * rest / np.maximum(mt, 1e-9))[:, None].astype(np.float32)
    return rates, cells.assign(is_poor=kind != "", poor_kind=kind)


def plant_ambient(
    rates: np.ndarray, cells: pd.DataFrame, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Replace about `share` of each droplet's expected counts by the sample's mean profile (the soup)."""
    own = np.clip(share * np.exp(rng.normal(0.0, 0.3, len(cells))), 0.0, 0.5)
    if len(cells):
        total = rates.sum(axis=1, keepdims=True)
        soup = rates.sum(axis=0) / max(float(rates.sum()), 1e-9)
        rates = rates * (1 - own)[:, None].astype(np.float32) + (own[:, None] * total).astype(np.float32) * soup
    return rates, cells.assign(pct_ambient=100 * own)


def barcodes(n: int, rng: np.random.Generator) -> list[str]:
    """`n` different 10x barcodes, sorted."""
    names: set[str] = set()
    while len(names) < n:
        names |= {"".join(word) for word in rng.choice(list("ACGT"), size=(n - len(names), 16))}
    return sorted(f"{name}-1" for name in names)


def simulate_sample(
    model: Model,
    phase: str,
    n_cells: int,
    depth: float,
    tumour: np.ndarray,
    batch: np.ndarray,
    rng: np.random.Generator,
    epithelial: float = 1.0,
    malignant_share: float = MALIGNANT_SHARE,
    further: Callable[[np.ndarray, pd.DataFrame], tuple[np.ndarray, pd.DataFrame]] | None = None,
) -> tuple[np.ndarray, pd.DataFrame, dict[str, float], pd.Series]:
    """Counts of one sample with its truth.

    Parameters
    ----------
    tumour, batch
        ln folds per gene (`tumour_effect`, `batch_effect`).
    epithelial
        factor on the odds of the epithelial share.
    malignant_share
        of epithelial cells.
    further
        a `plant_*` step between the tumour and the batch effect: log-mean and cells in, both out (`simulation_tumour.plant`).

    Returns
    -------
    counts
        droplets x genes, int32.
    cells
        one row per droplet: barcode, main_type, subtype, lineage, is_malignant, is_doublet, doublet_kind, main_type_2, subtype_2,
        is_poor, poor_kind, pct_ambient, then the columns of `further`.
    rates
        what was drawn for the sample: doublet_rate, poor_rate, pct_ambient.
    shares
        expected share of each main type.
    """
    is_mt = (model.genes["role"] == "mitochondrial").to_numpy()
    shares = proportions(phase, rng, epithelial)
    doublet_rate, poor_rate = rng.uniform(*DOUBLET_RATE), rng.uniform(*POOR_RATE)
    ambient = rng.uniform(*AMBIENT_SHARE)
    n_doublets = min(round(doublet_rate * n_cells), n_cells // 2)

    cells = draw_cells(model.states, shares, n_cells + n_doublets, depth, malignant_share, rng)
    log_mean = model.log_mean.astype(np.float32)[cells["state"].to_numpy()]
    log_mean = plant_tumour(log_mean, cells, tumour)
    known = set(cells)
    if further is not None:
        log_mean, cells = further(log_mean, cells)
    added = [name for name in cells if name not in known]
    log_mean = plant_batch(log_mean, batch, rng)
    if n_cells:
        rates = to_rates(log_mean, cells["library"].to_numpy())
    else:
        rates = log_mean
    rates = plant_noise(rates, model.dispersion, is_mt, rng)
    rates, cells = plant_doublets(rates, cells, model.states, n_doublets, rng)
    rates, cells = plant_ambient(rates, cells, ambient, rng)
    rates, cells = plant_poor(rates, cells, is_mt, poor_rate, rng)
    counts = rng.poisson(rates).astype(np.int32)

    order = rng.permutation(len(cells))  # barcodes must not tell doublets from singlets
    counts, cells = counts[order], cells.iloc[order].reset_index(drop=True)
    second = cells["state_2"].to_numpy()
    for name in ("main_type", "subtype", "lineage"):
        cells[name] = model.states[name].to_numpy()[cells["state"].to_numpy()]
    for name in ("main_type", "subtype"):
        cells[f"{name}_2"] = np.where(second >= 0, model.states[name].to_numpy()[second], "")
    cells["barcode"] = barcodes(len(cells), rng)
    columns = ["barcode", "main_type", "subtype", "lineage", "is_malignant", "is_doublet", "doublet_kind", "main_type_2"]
    columns += ["subtype_2", "is_poor", "poor_kind", "pct_ambient", *added]
    drawn = {"doublet_rate": doublet_rate, "poor_rate": poor_rate, "pct_ambient": 100 * ambient}
    return counts, cells[columns], drawn, shares


def draw_size(n_cells: float, rng: np.random.Generator) -> int:
    """Number of droplets of a sample whose design gives none: about `n_cells`, varied by 15 %."""
    return round(n_cells * float(np.exp(rng.normal(0.0, 0.15))))
