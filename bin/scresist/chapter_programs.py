"""Chapter of the report: co-expression modules of tumour cells, their traits, scores and genes."""

from __future__ import annotations

import pandas as pd

from scresist import keys, report
from scresist.layout import Box, Chapter, Context, Heat, Line, Section, empty, items, picture
from scresist.report import Col, count, listing, natural, number, to_number

STEP = "find_programs"
FOLDER = "03_tumour/programs"
GREY = "grey"
SAMPLE, CELL = "sample", keys.CELL_LEVEL
ALPHA = 0.05
MAX_BOXES = 24  # modules shown as tabs
HUBS_SHOWN = 10
TRAIT_NAMES = {
    "primary_resistance": "primary resistance",
    "acquired_resistance": "acquired resistance",
    "treated": "treated",
    "phase_time": "time of the phase",
}
GROUP_NAMES = {keys.PHASE: "phase", keys.CLONE: "clone", keys.EPI_CLUSTER: "epithelial cluster"}


def programs(context: Context) -> Chapter:
    """Modules: curve of the power, tree, traits, scores, genes, preservation."""
    tables = context.tables
    sizes, traits = tables.get("module_sizes"), _with_numbers(tables.get("module_traits"))
    names = [name for name in sizes["module"] if name != GREY] if "module" in sizes else []
    why = "No modules: " + context.why(STEP)
    return Chapter(
        "programs",
        "Programs of tumour cells",
        _intro(context, sizes, names, traits),
        [
            _traits_section(context, names, traits, why),
            _scores_section(context, names, why),
            _groups_section(context, names, why),
            _hubs_section(context, sizes, names, why),
            _tree_section(context, why),
            _power_section(context, why),
            _preservation_section(context, names, why),
        ],
    )


def _with_numbers(traits: pd.DataFrame) -> pd.DataFrame:
    """The table of traits with p and rho as numbers; an empty table gets its columns."""
    wanted = ["module", "trait", "level", "rho", "p_value", "p_adjusted", "p_min_attainable", "difference", "evidence", "status"]
    frame = traits.reindex(columns=list(dict.fromkeys([*traits.columns, *wanted])))
    for name in ("rho", "p_value", "p_adjusted", "p_min_attainable", "difference"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame


def trait_name(trait: str) -> str:
    """A trait as a reader names it."""
    return TRAIT_NAMES.get(trait, trait.removeprefix("trait_").replace("_", " "))


def significant(traits: pd.DataFrame) -> pd.Series:
    """Rows that may be worded as a finding: sample level, adjusted p below 0.05, two patients a side or more."""
    return (traits["level"] == SAMPLE) & (traits["p_adjusted"] < ALPHA) & traits["evidence"].isin(report.EVIDENCE_CLAIMS)


def _intro(context: Context, sizes: pd.DataFrame, names: list[str], traits: pd.DataFrame) -> str:
    head = (
        "<p>A program (module) is a group of genes that tumour cells switch on and off together: proliferation, for instance, or"
        " a way of feeding. Programs were found in the tumour cells without looking at the course of the disease; only then was"
        " asked which of them are stronger or weaker in tumours that resist. A patient counts once on each side, however many"
        " cells were measured.</p>"
    )
    if not names:
        return head + empty("No programs: " + context.why(STEP))
    n_genes = pd.to_numeric(sizes.loc[sizes["module"] != GREY, "n_genes"], errors="coerce").sum()
    lines = [f"{count(len(names), 'module')} with {int(n_genes):,} genes together; M1 is the largest."]
    clear = traits[significant(traits)].sort_values(["p_adjusted", "trait", "module"], kind="stable")
    for row in clear.head(6).to_dict("records"):
        way = "goes up" if row["rho"] > 0 else "goes down"
        lines.append(
            f"{row['module']} {way} with {trait_name(row['trait'])}: rho {row['rho']:.2f}, adjusted p"
            f" {number(row['p_adjusted'])} ({row['evidence']})."
        )
    decided = traits[traits["level"] == SAMPLE]
    if clear.empty:
        lines.append("No module is tied to a trait of the samples at an adjusted p below 0.05.")
        for trait, part in decided.groupby("trait", sort=False):
            known = part[part["rho"].notna()]
            if trait in ("primary_resistance", "acquired_resistance") and len(known):
                order = [known["rho"].abs().round(9), known["difference"].abs().fillna(0)]
                top = known.assign(_rho=order[0], _gap=order[1]).sort_values(["_rho", "_gap"], ascending=False, kind="stable")
                first = top.iloc[0].to_dict()
                lines.append(
                    f"exploratory: the strongest relation with {trait_name(trait)} is that of {first['module']}"
                    f" (rho {first['rho']:.2f}, {first['evidence']})."
                )
    least = decided.dropna(subset="p_min_attainable").drop_duplicates("trait")
    blocked = [trait_name(row["trait"]) for row in least.to_dict("records") if row["p_min_attainable"] > ALPHA]
    if blocked:
        lines.append(f"{listing(blocked)}: with so few patients no test can give p below 0.05; read the size of the relation.")
    return head + items(lines)


def _traits_section(context: Context, names: list[str], traits: pd.DataFrame, why: str) -> Section:
    decided = traits[traits["level"] == SAMPLE]
    shown = list(dict.fromkeys(decided["trait"]))
    value = {(row["module"], row["trait"]): row["rho"] for row in decided.to_dict("records")}
    cells = [[_rounded(value.get((module, trait))) for trait in shown] for module in names]
    known = any(cell is not None for row in cells for cell in row)
    starred = decided.assign(
        star=["*" if clear else "" for clear in significant(decided)],
        trait_name=[trait_name(trait) for trait in decided["trait"]],
        cells=[_cell_rho(traits, row["module"], row["trait"]) for row in decided.to_dict("records")],
    ).sort_values(["p_value", "rho"], key=lambda column: column.abs() if column.name == "rho" else column, kind="stable")
    return Section(
        "sc_programs_traits",
        "Modules and traits of the samples",
        "Spearman correlation (rho, -1 to 1) of the mean module score of patients with each trait: above 0, the module is higher"
        " with the trait. Samples of one patient with the same trait are one value. * marks an adjusted p below 0.05 at this"
        " level. The last column gives rho over metacells, which counts cells and is exploratory.",
        before="" if known else empty(why if not names else "No relation could be computed: the traits are constant or absent."),
        plot=(
            Heat(
                cells,
                [trait_name(trait) for trait in shown],
                names,
                "Module scores and traits (patients)",
                "trait",
                "module",
                "rho",
            )
            if known
            else None
        ),
        after=report.table(
            starred,
            [
                Col("module", "module"),
                Col("trait_name", "trait"),
                Col("rho", "rho", "num", "Spearman over patients", 2),
                Col("star", "clear", help="* = adjusted p below 0.05 between patients"),
                Col("difference", "difference", "num", "mean of side A minus side B in standard deviations of cells", 2),
                Col("n", "values", "int", "patients, counted once for each value of the trait"),
                Col("n_patients_a", "patients with", "int", "side A, or all patients for a numeric trait"),
                Col("n_patients_b", "patients without", "int"),
                Col("p_value", "p", "p", "permutation of the trait"),
                Col("p_adjusted", "adjusted p", "p", "Benjamini-Hochberg over modules x traits"),
                Col("p_min_attainable", "smallest p", "p", "that this number of patients allows"),
                Col("evidence", "evidence"),
                Col("status", "status", "status"),
                Col("cells", "rho over metacells", "num", "exploratory: counts cells", 2),
            ],
            f"{FOLDER}/module_traits.tsv",
            context.max_rows,
            "no module was found",
        ),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(float(value), 3)


def _cell_rho(traits: pd.DataFrame, module: str, trait: str) -> float | None:
    found = traits[(traits["level"] == CELL) & (traits["module"] == module) & (traits["trait"] == trait)]["rho"]
    return None if found.empty else _rounded(found.iloc[0])


def _scores_section(context: Context, names: list[str], why: str) -> Section:
    table = context.tables.get("module_samples")
    boxes: dict[str, dict[str, dict[str, float]]] = {}
    phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
    rows = {(row["module"], row["sample"]): row for row in table.to_dict("records")}
    parts = ("min", "q1", "median", "q3", "max", "mean")
    for module in names[:MAX_BOXES]:
        made = {}
        for sample in context.samples():
            row = rows.get((module, sample))
            values = {part: to_number(row.get(part)) for part in parts} if row else {}
            if values and all(value is not None for value in values.values()):
                made[f"{phase[sample]}: {sample} (n={number(row['n_cells'], 0)})"] = values
        if made:
            boxes[module] = made
    more = f" The first {MAX_BOXES} of {len(names)} modules are shown." if len(names) > MAX_BOXES else ""
    return Section(
        "sc_programs_scores",
        "Module scores by phase and sample",
        "One box per sample, in the order of the phases, n = tumour cells: middle line = median, box = middle half of the cells,"
        " whiskers = 1st and 99th percentile. The score is a principal component: 0 is the average tumour cell of the cohort, its"
        " unit has no meaning by itself." + more,
        before="" if boxes else empty(why),
        plot=Box(boxes, dict.fromkeys(boxes, "module score (no unit)"), "Module scores") if boxes else None,
        after=f'<p class="sc-source">As a file: <code>{FOLDER}/module_samples.tsv</code></p>' if boxes else "",
    )


def _groups_section(context: Context, names: list[str], why: str) -> Section:
    table = context.tables.get("module_groups")
    groups: list[tuple[str, str]] = []
    value: dict[tuple[str, str, str], float | None] = {}
    if len(table):
        known = list(dict.fromkeys(zip(table["group_type"], table["group"], strict=True)))
        place = {kind: at for at, kind in enumerate(GROUP_NAMES)}
        phases = {phase: at for at, phase in enumerate(context.phases())}
        groups = sorted(known, key=lambda g: (place.get(g[0], 9), phases.get(g[1], 0), natural(g[1])))
        value = {
            (r["group_type"], r["group"], r["module"]): to_number(r.get("mean_expression")) for r in table.to_dict("records")
        }
    cells = [[_rounded(value.get((*group, module))) for module in names] for group in groups]
    labels = [f"{GROUP_NAMES.get(kind, kind)} {group}" for kind, group in groups]
    shown = bool(names) and bool(groups)
    source = f'<p class="sc-source">All {count(len(groups), "group")}: <code>{FOLDER}/module_groups.tsv</code></p>'
    return Section(
        "sc_programs_groups",
        "Modules in phases, clones and clusters",
        "Mean expression of the module's genes above that of genes of like level (0 = like them), over the tumour cells of each"
        " phase, clone and epithelial cluster. Cells are the unit, so the picture is descriptive.",
        before="" if shown else empty(why),
        plot=(
            Heat(
                cells[:200], names, labels[:200], "Modules in groups of tumour cells", "module", "group",
                "expression above controls (ln(1 + CP10k))",
            )
            if shown
            else None
        ),
        after=source if shown else "",
    )  # fmt: skip


def _hubs_section(context: Context, sizes: pd.DataFrame, names: list[str], why: str) -> Section:
    mine = sizes[sizes["module"] != GREY] if "module" in sizes else sizes
    if "hub_genes" in mine:
        shorter = [
            ", ".join(str(text).split(",")[:HUBS_SHOWN]) if not report.is_missing(text) else None for text in mine["hub_genes"]
        ]
        mine = mine.assign(hub_genes=shorter)
    grey = (
        to_number(sizes.loc[sizes["module"] == GREY, "n_genes"].iloc[0])
        if "module" in sizes and GREY in set(sizes["module"])
        else None
    )
    rest = f" {number(grey, 0)} genes of the network belong to no module." if grey is not None else ""
    return Section(
        "sc_programs_hubs",
        "Hub genes",
        "The genes most typical of each module (largest correlation with its score over tumour cells). A module whose variance"
        f" lies mostly between samples may be a difference between patients rather than a program of cells.{rest}",
        report.table(
            mine,
            [
                Col("module", "module"),
                Col("n_genes", "genes", "int"),
                Col("hub_genes", "hub genes", help="the first by kME over cells"),
                Col("variance_explained", "explained", "share", "share of the genes' variance over metacells in the eigengene"),
                Col("between_samples", "between samples", "share", "share of the eigengene's variance between samples"),
                Col("mean_kme", "mean kME", "num", "mean correlation of the genes with the eigengene", 2),
            ],
            f"{FOLDER}/module_sizes.tsv",
            context.max_rows,
            why,
        ),
        after=f'<p class="sc-source">All genes with their membership: <code>{FOLDER}/modules.tsv</code></p>' if names else "",
    )


def _tree_section(context: Context, why: str) -> Section:
    found = context.tables.pictures("dendrogram").get("modules")
    return Section(
        "sc_programs_tree",
        "Tree of genes",
        "Each gene is a leaf; genes that join low have the same neighbours in the network (distance = 1 - topological overlap)."
        " The bar below gives the module of each gene, pale where it has none.",
        picture(found, "Dendrogram of the genes of the network with their modules") if found else empty(why),
    )


def _power_section(context: Context, why: str) -> Section:
    table = context.tables.get("soft_threshold")
    tabs: dict[str, dict[str, dict[float, float]]] = {}
    chosen = ""
    for tab, column, series in (
        ("Scale-free fit", "signed_r2", "signed R2"), ("Mean connectivity", "mean_k", "mean connectivity"),
    ):  # fmt: skip
        points = {}
        for row in table.to_dict("records"):
            x, y = to_number(row.get("power")), to_number(row.get(column))
            if x is not None and y is not None:
                points[x] = float(f"{y:.5g}")
        if points:
            tabs[tab] = {series: points}
    if "chosen" in table:
        used = table.loc[table["chosen"].astype(str).str.lower() == "true", "power"]
        chosen = f" Power used here: {number(used.iloc[0])}." if len(used) else ""
    return Section(
        "sc_programs_power",
        "Choice of the power",
        "Correlations are raised to a power so that weak ones count for little. The first power is taken at which the numbers of"
        " partners of a gene follow a power law (signed R2 of 0.9, else 0.8); a negative value means the contrary of such a law."
        f"{chosen}",
        before="" if tabs else empty(why),
        plot=(
            Line(tabs, "Soft threshold", "power", "signed R2 (-1 to 1), or sum of adjacencies", {"signed R2": "#0072B2"})
            if tabs
            else None
        ),
        after=f'<p class="sc-source">As a file: <code>{FOLDER}/soft_threshold.tsv</code></p>' if tabs else "",
    )


def _preservation_section(context: Context, names: list[str], why: str) -> Section:
    return Section(
        "sc_programs_preservation",
        "Modules within each phase",
        "Mean correlation of all pairs of a module's genes over the cells of one phase, beside that of all genes of the network;"
        " and whether the same genes lead the module there (rank correlation of memberships). A module that lives on differences"
        " between phases falls to the background within them. Phases with fewer than 100 tumour cells are left out.",
        report.table(
            context.tables.get("preservation"),
            [
                Col("module", "module"),
                Col("phase", "phase"),
                Col("n_cells", "cells", "int"),
                Col("mean_correlation", "mean correlation", "num", "over single cells, so small by nature", 3),
                Col("background_correlation", "background", "num", "all genes of the network", 3),
                Col("kme_rank_correlation", "same leading genes", "num", "Spearman, -1 to 1", 2),
                Col("status", "status", "status"),
            ],
            f"{FOLDER}/preservation.tsv",
            context.max_rows,
            why if not names else "",
        ),
    )
