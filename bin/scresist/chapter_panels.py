"""Chapter of the report: named genes and gene sets over the phases of therapy."""

from __future__ import annotations

import pandas as pd

from scresist import figures, keys, report
from scresist.layout import Chapter, Context, Heat, Line, Section, comparison_columns, empty, items
from scresist.report import Col, count, listing, to_number

FOLDER = "03_tumour/panels"
STEP = "track_panels"
SETS = ("set_score", "set_mean")
SET_NAMES = {"set_score": "set score", "set_mean": "mean of the set"}
# shown as lines, where they were measured: target, reported rise, checkpoint; then the panels with an expected direction
FIRST = (("ERBB2", keys.TUMOUR), ("CST3", keys.TUMOUR), ("MKI67", keys.TUMOUR), ("PDCD1", "t_cell"))
MAX_TABS = 8
TESTS_SHOWN = 30
CLAIMS = (keys.REPLICATED, keys.LIMITED)


def panels(context: Context) -> Chapter:
    """Values per phase, patients over time, tests between patients, tests over cells, trends, clones."""
    values = context.tables.get("panel_values")
    title = "Panels of named genes"
    if values.empty:
        why = empty("No values: " + context.why(STEP))
        sections = [Section("sc_panels_phases", "Genes over phases", "Not available.", why)]
        return Chapter("sc_panels", title, "<p>Genes that were named beforehand, followed through therapy.</p>", sections)
    tests, trend = context.tables.get("panel_tests"), context.tables.get("panel_trend")
    sections = [
        _phases(context, values),
        _sets(context, values),
        _patients(context, values),
        _between(context, tests),
        _cells(context, tests),
        _trend(context, trend),
        _clones(context),
    ]
    return Chapter("sc_panels", title, _intro(context, tests, trend), sections)


def name_of(gene: str, panel: str) -> str:
    """A gene's symbol, or the name of a panel's set."""
    return f"{panel} ({SET_NAMES[gene]})" if gene in SETS else gene


def _numbers(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A copy in which these columns are numbers, missing where the cell is empty."""
    return frame.assign(**{c: pd.to_numeric(frame[c], errors="coerce") for c in columns if c in frame})


def _intro(context: Context, tests: pd.DataFrame, trend: pd.DataFrame) -> str:
    """What a reader without bioinformatics takes along."""
    head = (
        "<p>These genes were named before the data were seen: the drug's target and what processes its payload, checkpoints of"
        " T cells, and the machinery that shows antigens to the immune system. Each is followed from phase to phase in the cells"
        " where it matters. A transcript is not the protein on the surface: staining decides on a target.</p>"
    )
    lines = []
    if len(tests):
        mine = _numbers(
            tests[(tests["unit"] == "patient") & (tests["test"] != "dunn")], "p_value", "p_adjusted", "p_min_attainable"
        )
        low = mine[(mine["p_adjusted"] < 0.05) & mine["evidence"].isin(CLAIMS)]
        tested = mine["p_value"].notna().sum()
        lines.append(f"{len(low)} of {count(int(tested), 'test')} between patients have an adjusted p below 0.05.")
        limits = mine.loc[mine["p_min_attainable"].notna(), ["contrast", "p_min_attainable"]].drop_duplicates("contrast")
        blocked = limits.loc[limits["p_min_attainable"] > 0.05, "contrast"].tolist()
        if blocked:
            lines.append(f"{listing(blocked)}: with so few patients no test can give p below 0.05; read the effects.")
    if len(trend):
        known = trend[(trend["expected_direction"] != "") & trend["expected_direction"].notna()]
        known = known[known["cell_type"].isin([keys.TUMOUR, "t_cell", "myeloid"])]
        n = known[keys.PATIENT].nunique()
        for (gene, cell_type), part in known.groupby(["gene", "cell_type"], sort=True):
            agree = int((part["as_expected"] == keys.YES).sum())
            if agree == len(part) and len(part) > 1:
                word = part["expected_direction"].iloc[0]
                lines.append(f"{gene} in {cell_type}: {word} in all {count(len(part), 'course')}, as stated beforehand.")
        lines.append(f"{count(n, 'patient')} with three ordered phases or more; a course has no error bar and is exploratory.")
    return head + items(lines)


def _phase_means(values: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over patients (samples of a patient weighted by cells) per panel, gene, cell type and phase."""
    known = _numbers(values, column, "n_cells").dropna(subset=[column])
    known = known[known["n_cells"] > 0]
    known["product"] = known[column] * known["n_cells"]
    by = ["panel", "gene", "cell_type", keys.PHASE]
    patients = known.groupby([*by, keys.PATIENT], sort=False)[["product", "n_cells"]].sum().reset_index()
    patients["value"] = patients["product"] / patients["n_cells"]
    return patients.groupby(by, sort=False)["value"].agg(["mean", "size"]).reset_index()


def _heat(context: Context, means: pd.DataFrame, rows: list[tuple[str, str, str]], title: str, unit: str) -> Heat | None:
    """Rows (panel, gene, cell type) against phases."""
    phases = [p for p in context.phases() if p in set(means[keys.PHASE])]
    at = {(r["panel"], r["gene"], r["cell_type"], r[keys.PHASE]): float(r["mean"]) for r in means.to_dict("records")}
    shown = [key for key in rows if any((*key, p) in at for p in phases)]
    if not shown or not phases:
        return None
    cells = [[round(at[(*key, p)], 3) if (*key, p) in at else None for p in phases] for key in shown]
    return Heat(cells, phases, [f"{name_of(k[1], k[0])}, {k[2]}" for k in shown], title, "phase", "gene, cells", unit)


def _keys(values: pd.DataFrame) -> list[tuple[str, str, str]]:
    unique = values[["panel", "gene", "cell_type"]].drop_duplicates()
    return [(row["panel"], row["gene"], row["cell_type"]) for row in unique.to_dict("records")]


def _phases(context: Context, values: pd.DataFrame) -> Section:
    single = values[~values["gene"].isin(SETS)]
    means = _phase_means(single, "pct")
    # one row per gene: the compartment that the panel names first, not each of its main types
    first: dict[tuple[str, str], tuple[str, str, str]] = {}
    for key in _keys(single):
        first.setdefault(key[:2], key)
    plot = _heat(context, means, list(first.values()), "Cells that express each gene", "cells positive (%), mean over patients")
    return Section(
        "sc_panels_phases",
        "Genes over phases",
        "Colour: percentage of cells with at least one count, mean over the patients of a phase. White: fewer cells than"
        " needed in every sample, or the gene was not measured. A cell without a count may still express the gene:"
        " depth matters.",
        before="" if plot else empty("No values: " + context.why(STEP)),
        plot=plot,
        after=f'<p class="sc-source">All cell types, means and counts per sample: <code>{FOLDER}/panel_values.tsv</code></p>',
    )


def _sets(context: Context, values: pd.DataFrame) -> Section:
    scores = values[values["gene"] == "set_score"]
    kind = "set_score" if scores["mean"].replace("", pd.NA).notna().any() else "set_mean"
    mine = values[values["gene"] == kind]
    means = _phase_means(mine, "mean") if len(mine) else pd.DataFrame(columns=["panel", "gene", "cell_type", keys.PHASE, "mean"])
    unit = "score (difference of ln values)" if kind == "set_score" else "mean ln(1 + counts per 10,000)"
    plot = _heat(context, means, _keys(mine), "Gene sets over phases", unit) if len(mine) else None
    return Section(
        "sc_panels_sets",
        "Gene sets over phases",
        "Colour: the panel's genes together, mean over the patients of a phase. A score is the mean of the genes minus the"
        " mean of control genes of like expression: 0 is no more than others. A panel whose genes move against"
        " each other has no meaning as a set.",
        before="" if plot else empty("No sets: " + context.why(STEP)),
        plot=plot,
    )


def _patients(context: Context, values: pd.DataFrame) -> Section:
    title, id_ = "Patients through therapy", "sc_panels_patients"
    reading = (
        "One line per patient with two ordered phases or more: mean of ln(1 + counts per 10,000) over the cells named in the tab."
        " Primary resistance lies beside the axis and is not drawn."
    )
    phases = context.tables.get("phases")
    if "time" not in phases:
        return Section(id_, title, reading, empty("No phase has a place on the time axis."))
    code = "phase" if "phase" in phases else "code"
    time = {p: to_number(t) for p, t in zip(phases[code], phases["time"], strict=True) if to_number(t) is not None}
    known = _numbers(values, "mean", "n_cells").dropna(subset=["mean"])
    known = known[known[keys.PHASE].isin(list(time))]
    pairs = [pair for pair in FIRST if ((known["gene"] == pair[0]) & (known["cell_type"] == pair[1])).any()]
    sets = known[known["gene"] == ("set_score" if (known["gene"] == "set_score").any() else "set_mean")]
    wanted = [(None, gene, cell_type) for gene, cell_type in pairs]
    places = ((keys.TUMOUR, "mhc_1"), ("myeloid", "mhc_2"), ("t_cell", "checkpoint"))
    wanted += [(panel, sets["gene"].iloc[0], cell_type) for cell_type, panel in places if len(sets)]
    data: dict[str, dict[str, dict[float, float]]] = {}
    for panel, gene, cell_type in wanted[:MAX_TABS]:
        mine = known[(known["gene"] == gene) & (known["cell_type"] == cell_type)]
        mine = mine[mine["panel"] == panel] if panel else mine[mine["panel"] == mine["panel"].min()]
        lines: dict[str, dict[float, float]] = {}
        for patient, part in mine.groupby(keys.PATIENT, sort=True):
            points = {
                float(at): float((group["mean"] * group["n_cells"]).sum() / group["n_cells"].sum())
                for at, group in part.groupby(part[keys.PHASE].map(time), sort=True)
            }
            if len(points) > 1:
                lines[str(patient)] = {at: round(value, 4) for at, value in points.items()}
        if lines:
            data[f"{name_of(gene, panel or '')}, {cell_type}"] = lines
    if not data:
        return Section(id_, title, reading, empty("No patient has two ordered phases with enough cells."))
    people = sorted({patient for lines in data.values() for patient in lines}, key=report.natural)
    axis = ", ".join(f"{int(t) if t == int(t) else t} = {p}" for p, t in sorted(time.items(), key=lambda item: item[1]))
    return Section(
        id_,
        title,
        reading,
        plot=Line(data, "Named genes through therapy", f"phase ({axis})", "mean expression", figures.colours(people)),
    )


TEST_COLS = [
    Col("panel", "panel"),
    Col("what", "gene"),
    Col("cell_type", "cells"),
    Col("measure", "measure", help="pct: % of cells positive; mean: mean of ln(1 + counts per 10,000), or score of a set"),
    *comparison_columns("side A minus side B, mean over patients; for `phases` epsilon squared, 0 to 1"),
]  # fmt: skip


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(what=[name_of(g, p) for g, p in zip(frame["gene"], frame["panel"], strict=True)])


def _between(context: Context, tests: pd.DataFrame) -> Section:
    title, id_ = "Between patients", "sc_panels_tests"
    reading = (
        "The tests that count: one value per patient. Sorted by p, then by the size of the effect. Where the least possible p"
        " exceeds 0.05, read effect and interval only. Adjusted over genes and cell types of a panel (Benjamini-Hochberg)."
    )
    mine = tests[(tests["unit"] == "patient") & (tests["test"] != "dunn")] if len(tests) else tests
    if mine.empty:
        return Section(id_, title, reading, empty("No contrast could be compared: " + context.why(STEP)))
    order = _numbers(mine, "p_value", "effect")
    order = order[order["effect"].notna()].assign(size=lambda f: f["effect"].abs())
    rows = mine.loc[order.sort_values(["p_value", "size"], ascending=[True, False], na_position="last", kind="stable").index]
    most = min(context.max_rows, TESTS_SHOWN)
    table = report.table(_named(rows), TEST_COLS, f"{FOLDER}/panel_tests.tsv", most, "no effect could be estimated", len(mine))
    return Section(id_, title, reading, table)


def _cells(context: Context, tests: pd.DataFrame) -> Section:
    mine = tests[(tests["unit"] == "cell") & (tests["test"] == "kruskal_wallis")] if len(tests) else tests
    if len(mine):
        order = _numbers(mine, "effect").sort_values("effect", ascending=False, na_position="last", kind="stable")
        mine = _named(mine.loc[order.index])
    columns = [
        Col("panel", "panel"),
        Col("what", "gene"),
        Col("cell_type", "cells"),
        Col("groups", "cells per phase"),
        Col("effect", "epsilon squared", "num", "share of the rank variance between phases, 0 to 1"),
        Col("p_adjusted", "adjusted p", "p", "Kruskal-Wallis over cells"),
        Col("p_equal_cells", "p at equal cell numbers", "p", "median of draws with as many cells from every phase"),
        Col("n_equal_cells", "cells per draw and phase", "int"),
        Col("evidence", "evidence"),
    ]
    return Section(
        "sc_panels_cells",
        "Over cells (exploratory)",
        "Kruskal-Wallis over single cells, as it is often published. Cells of one patient are alike, so these p values are far"
        " too small and prove nothing between patients; look at epsilon squared, sorted here. Dunn's pairs stand in the file.",
        report.table(mine, columns, f"{FOLDER}/panel_tests.tsv", min(context.max_rows, TESTS_SHOWN), context.why(STEP)),
    )


def _trend(context: Context, trend: pd.DataFrame) -> Section:
    rows = []
    if len(trend):
        for (panel, gene, cell_type), part in trend.groupby(["panel", "gene", "cell_type"], sort=False):
            met = part["pattern"].value_counts()
            met = met.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
            expected, agree = part["expected_direction"].iloc[0], int((part["as_expected"] == keys.YES).sum())
            rows.append(
                {
                    "panel": panel, "what": name_of(gene, panel), "cell_type": cell_type, "n": len(part),
                    "patterns": ", ".join(f"{word} {n}" for word, n in met.items()), "expected": expected,
                    "agree": "" if report.is_missing(expected) else f"{agree} of {len(part)}",
                    "order": report.is_missing(expected),
                }
            )  # fmt: skip
    columns = [
        Col("panel", "panel"),
        Col("what", "gene"),
        Col("cell_type", "cells"),
        Col("n", "patients", "int"),
        Col("patterns", "courses seen"),
        Col("expected", "stated beforehand"),
        Col("agree", "as stated"),
    ]
    made = pd.DataFrame(rows)
    made = made.sort_values("order", kind="stable") if len(made) else made
    return Section(
        "sc_panels_trend",
        "Courses of single patients",
        "For patients with three ordered phases or more: does the mean rise or fall from phase to phase? Only the sign is read,"
        " so a small change counts like a large one; with three phases a random course agrees with a stated one quite often.",
        report.table(made, columns, f"{FOLDER}/panel_trend.tsv", context.max_rows, "no patient has three ordered phases"),
    )


def _clones(context: Context) -> Section:
    clones = context.tables.get("panel_clones")
    if len(clones):
        place = {gene: 0 if gene == "ERBB2" else 1 for gene in set(clones["gene"])}
        known = clones[[not report.is_missing(v) for v in clones["locus_z"]]]
        clones = known.assign(order=known["gene"].map(place)).sort_values(["order", "gene", keys.PATIENT, "clone"], kind="stable")
    columns = [
        Col("gene", "gene"),
        Col(keys.PATIENT, "patient"),
        Col("clone", "clone"),
        Col("n_cells", "cells", "int"),
        Col("locus_call", "locus"),
        Col("locus_z", "mean profile at the locus", "num", "log2 ratio against the patient's normal cells", 2),
        Col("pct", "cells positive", "pct"),
        Col("mean", "mean expression", "num", "mean of ln(1 + counts per 10,000)", 2),
    ]
    return Section(
        "sc_panels_clones",
        "Copy number and expression per clone",
        "ERBB2 first. The profile is smoothed over about 100 genes around the locus: it sees gains and losses of regions, not"
        " of single genes. A gene that falls without loss of its locus is regulated; one that falls with it is"
        " lost from that clone.",
        report.table(clones, columns, f"{FOLDER}/panel_clones.tsv", context.max_rows, "no clone was traced"),
    )
