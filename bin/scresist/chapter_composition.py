"""Chapter of the report: shares of cell types over the phases, tests between patients, diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import pandas as pd

from scresist import figures, keys, report
from scresist.layout import Bar, Chapter, Context, Heat, Section, empty, items, phase_legend
from scresist.report import Col, count, esc, listing, number, to_number

FOLDER = "04_microenvironment/composition"
STEP = "test_composition"
MAIN, ALL, IMMUNE = "main_type", "all", "immune"
TESTS_SHOWN = 40
CLAIMS = (keys.REPLICATED, keys.LIMITED)
ALPHA = 0.05
METHOD_NAMES = {
    "rank": "rank test of shares", "propeller_logit": "propeller, logit", "propeller_arcsin": "propeller, arcsine",
    "clr": "centred log ratio, t", "kruskal": "Kruskal-Wallis", "diversity": "rank test",
}  # fmt: skip
INDEX_NAMES = {"hill_q0": "types present", "hill_q1": "effective types (q1)", "hill_q2": "effective types (q2)"}
# Points by phase: width, height and margins of one small figure, in pixels.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 190, 150, 40, 34, 18
MAX_STRIPS = 24


def composition(context: Context) -> Chapter:
    """Bars per sample, points per phase, tests, phases together, diversity, distances."""
    shares = context.tables.get("proportions")
    title = "Composition: tests and diversity"
    if shares.empty:
        why = empty("No shares: " + context.why(STEP))
        intro = "<p>Which cells a biopsy is made of, and whether that changes through therapy.</p>"
        return Chapter("sc_composition", title, intro, [Section("sc_composition_samples", "Per sample", "Not available.", why)])
    tests = context.tables.get("composition_tests")
    diversity = context.tables.get("diversity")
    sections = [
        _samples(context, shares),
        _points(context, shares),
        _tests(context, tests),
        _phases(context, tests),
        _diversity(context, diversity, tests),
        _distance(context),
    ]
    return Chapter("sc_composition", title, _intro(context, shares, tests), sections)


def numbers(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A copy in which these columns are numbers, missing where the cell is empty."""
    return frame.assign(**{c: pd.to_numeric(frame[c], errors="coerce") for c in columns if c in frame})


def strips(
    values: pd.DataFrame, panels: Sequence[str], phases: Sequence[str], colours: Mapping[str, str], unit: str, zero: bool = True
) -> str:
    """Small figures side by side, one per name of `panels`: a point per sample above its phase, a bar at the mean over patients.

    Parameters
    ----------
    values
        panel, sample, patient, phase, value and, where known, low and high (drawn as a line through the point).
    unit
        of the value, written beside the axis.
    zero
        the axis begins at 0.
    """
    made = []
    for name in panels:
        mine = values[(values["panel"] == name) & values["value"].notna()]
        if mine.empty:
            continue
        made.append(_strip(name, mine, phases, colours, unit, zero))
    if not made:
        return ""
    return '<div style="display:flex;flex-wrap:wrap;gap:6px">' + "".join(made) + "</div>"


def _strip(name: str, mine: pd.DataFrame, phases: Sequence[str], colours: Mapping[str, str], unit: str, zero: bool) -> str:
    ends = [column for column in ("value", "low", "high") if column in mine]
    known = mine[ends].to_numpy(dtype=float).ravel()
    known = known[[isfinite(v) for v in known]]
    low, high = (min(0.0, known.min()) if zero else known.min()), known.max()
    span = (high - low) or abs(high) or 1.0
    high = high + 0.05 * span
    low = low if zero and low == 0 else low - 0.05 * span

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    step, half = (WIDTH - LEFT - 6) / len(phases), (HEIGHT - BOTTOM + TOP) / 2
    parts = [
        f'<text x="{WIDTH / 2}" y="11" text-anchor="middle" font-weight="bold">{esc(name)}</text>',
        f'<text x="9" y="{half}" text-anchor="middle" transform="rotate(-90 9 {half})">{esc(unit)}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 4}" fill="none" stroke="#888"/>',
    ]
    for value in (low, (low + high) / 2, high):
        told = esc(number(value, _digits(span)))
        parts.append(f'<text x="{LEFT - 3}" y="{y(value) + 3}" text-anchor="end" fill="#555">{told}</text>')
    for at, phase in enumerate(phases):
        middle = LEFT + step * (at + 0.5)
        here = mine[mine[keys.PHASE] == phase].sort_values([keys.PATIENT, keys.SAMPLE], kind="stable")
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 12}" text-anchor="middle">{esc(phase)}</text>')
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 23}" text-anchor="middle" fill="#555">n={len(here)}</text>')
        if here.empty:
            continue
        colour = esc(colours.get(phase, figures.GREY))
        for i, row in enumerate(here.to_dict("records")):
            x = round(middle + min(7, step / 3) * (0 if len(here) == 1 else 2 * i / (len(here) - 1) - 1), 1)
            told = f"{row[keys.SAMPLE]}: {number(row['value'])}"
            ends_known = to_number(row.get("low")) is not None and to_number(row.get("high")) is not None
            if ends_known:
                parts.append(f'<path d="M{x} {y(row["low"])}V{y(row["high"])}" stroke="{colour}" stroke-opacity="0.5"/>')
                told += f" ({number(row['low'])} to {number(row['high'])})"
            parts.append(f'<circle cx="{x}" cy="{y(row["value"])}" r="3" fill="{colour}"><title>{esc(told)}</title></circle>')
        mean = float(here.groupby(keys.PATIENT)["value"].mean().mean())
        parts.append(f'<path d="M{middle - step / 3:.1f} {y(mean)}H{middle + step / 3:.1f}" stroke="#222" stroke-width="1.5"/>')
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="9" font-family="sans-serif"'
        f' aria-label="{esc(f"{name} by phase, one point per sample")}">{"".join(parts)}</svg>'
    )


def _digits(span: float) -> int:
    return 0 if span >= 20 else 1 if span >= 2 else 2 if span >= 0.1 else 3


def blocked(tests: pd.DataFrame) -> list[str]:
    """Contrasts in which no rank test of all patients can give p below 0.05."""
    least = numbers(tests, "p_min_attainable").groupby("contrast", sort=False)["p_min_attainable"].min()
    return [str(name) for name in least.index[least > ALPHA]]


def untested(tests: pd.DataFrame) -> list[str]:
    """Contrasts with effects but without any p: fewer than two patients on a side."""
    known = numbers(tests, "p_value").groupby("contrast", sort=False)["p_value"].count()
    return [str(name) for name in known.index[known == 0]]


def _main(tests: pd.DataFrame) -> pd.DataFrame:
    """Tests between patients of the main types among all cells."""
    if tests.empty:
        return tests
    chosen = (tests["level"] == MAIN) & (tests["denominator"] == ALL) & (tests["unit"] == "patient")
    return tests[chosen & (tests["test"] != "dunn")]


def _intro(context: Context, shares: pd.DataFrame, tests: pd.DataFrame) -> str:
    """What a clinician reads first."""
    people = shares.groupby(keys.PHASE)[keys.PATIENT].nunique()
    head = (
        "<p>Which cells a biopsy is made of, and whether that changes through therapy. A share also falls when another type"
        " grows: all shares of a sample add up to 100 %. A biopsy samples one place, and the patient is the unit, however many"
        " cells were counted.</p>"
    )
    counted = [f"{phase} {int(people[phase])}" for phase in context.phases() if phase in people.index]
    lines = [f"Patients with cells: {', '.join(counted)}."]
    mine = _main(tests)
    mine = mine[~mine["contrast"].eq("phases")] if len(mine) else mine
    if len(mine):
        plain = mine[mine["method"] == "rank"]
        found = numbers(mine, "p_adjusted", "mean_a", "mean_b")
        found = found[(found["p_adjusted"] < ALPHA) & found["evidence"].isin(CLAIMS)]
        for contrast, part in found.groupby("contrast", sort=False):
            told = []
            for name, rows in part.groupby("cell_type", sort=True):
                a, b = float(rows["mean_a"].iloc[0]), float(rows["mean_b"].iloc[0])
                how = listing([METHOD_NAMES.get(m, m) for m in rows["method"]])
                told.append(f"{name} {'higher' if a > b else 'lower'} ({100 * a:.0f} % against {100 * b:.0f} %; {how})")
            lines.append(f"{str(contrast).replace('_vs_', ' against ')}: {'; '.join(told)}; adjusted p below {ALPHA:g}.")
        if found.empty:
            lines.append(f"No main type changed with an adjusted p below {ALPHA:g} in any contrast.")
        if names := blocked(plain):
            lines.append(
                f"{listing(names)}: so few patients that no rank test can give p below {ALPHA:g}; read effects and intervals."
            )
        if names := untested(plain):
            lines.append(f"{listing(names)}: fewer than two patients on a side; effects only, exploratory.")
    return head + items(lines)


def _samples(context: Context, shares: pd.DataFrame) -> Section:
    mine = numbers(shares[(shares["level"] == MAIN) & (shares["denominator"] == ALL)], "n_cells", "n_total")
    types = [t for t in context.types() if t in set(mine["cell_type"])]
    types += sorted(set(mine["cell_type"]) - set(types))
    wide = mine.pivot(index=keys.SAMPLE, columns="cell_type", values="n_cells") if len(mine) else pd.DataFrame()
    total = mine.drop_duplicates(keys.SAMPLE).set_index(keys.SAMPLE)["n_total"] if len(mine) else pd.Series(dtype=float)
    phase = dict(zip(shares[keys.SAMPLE], shares[keys.PHASE], strict=True))
    palette = figures.colours(types, figures.TYPE_COLOURS)
    bars = {
        f"{s} ({phase[s]}, n={int(total[s]):,})": {t: int(wide.loc[s, t]) for t in types}
        for s in context.samples()
        if s in wide.index
    }
    plot = Bar(bars, {t: (t, palette[t]) for t in types}, "Cell types per sample", "cells", True) if bars else None
    return Section(
        "sc_composition_samples",
        "Shares per sample",
        "One bar per sample, samples of one phase side by side, split by main type (n = cells). Switch between shares and counts"
        " with the button.",
        before="" if plot else empty("Main types were not among the levels of this run."),
        plot=plot,
        after=f'<p class="sc-source">Subtypes, lineages, clusters and clones: <code>{FOLDER}/proportions.tsv</code></p>',
    )


def _points(context: Context, shares: pd.DataFrame) -> Section:
    title, id_ = "Shares by phase", "sc_composition_phases"
    reading = (
        "One point per sample (name and value on hover), with its 95 % Wilson interval over cells; the bar is the mean over"
        " patients. n = samples. Samples with too few cells for a test are left out."
    )
    mine = numbers(shares[(shares["denominator"] == ALL) & (shares["level"] == MAIN)], "share", "wilson_low", "wilson_high")
    mine = mine[mine["status"] == keys.OK]
    values = pd.DataFrame(
        {
            "panel": mine["cell_type"], keys.SAMPLE: mine[keys.SAMPLE], keys.PATIENT: mine[keys.PATIENT],
            keys.PHASE: mine[keys.PHASE], "value": 100 * mine["share"], "low": 100 * mine["wilson_low"],
            "high": 100 * mine["wilson_high"],
        }
    )  # fmt: skip
    order = values.groupby("panel")["value"].mean().sort_values(ascending=False, kind="stable").index.tolist()
    drawn = strips(values, order[:MAX_STRIPS], context.phases(), context.phase_colours(), "share (%)")
    body = phase_legend(context) + drawn if drawn else empty("No sample has enough cells.")
    return Section(id_, title, reading, body)


TEST_COLS = [
    Col("level", "labels"),
    Col("denominator", "among"),
    Col("cell_type", "type"),
    Col("contrast", "contrast"),
    Col("how", "method"),
    Col("n_patients_a", "patients A", "int"),
    Col("n_patients_b", "patients B", "int"),
    Col("mean_a", "share A", "share", "mean share over the patients of side A", 1),
    Col("mean_b", "share B", "share", "mean share over the patients of side B", 1),
    Col("effect", "effect", "num", "side A minus side B on the scale of the method (share, logit, arcsine, log ratio)"),
    Col("ci_low", "95 % from", "num"),
    Col("ci_high", "to", "num"),
    Col("p_value", "p", "p"),
    Col("p_adjusted", "adjusted p", "p", "Benjamini-Hochberg over the types of a contrast and method"),
    Col("p_min_attainable", "least possible p", "p", "the smallest p that a rank test of so many patients can give"),
    Col("evidence", "evidence"),
    Col("status", "status", "status"),
]  # fmt: skip


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the name of their method for a reader."""
    return frame.assign(how=[METHOD_NAMES.get(m, m) for m in frame["method"]])


def by_p(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with an effect, smallest p first, then by the size of the effect."""
    order = numbers(frame, "p_value", "effect")
    order = order[order["effect"].notna()].assign(size=lambda f: f["effect"].abs())
    return frame.loc[order.sort_values(["p_value", "size"], ascending=[True, False], na_position="last", kind="stable").index]


def _tests(context: Context, tests: pd.DataFrame) -> Section:
    title, id_ = "Tests between patients", "sc_composition_tests"
    reading = (
        "The comparisons of two phases, one value per patient, by four methods: the rank test asks for order only; propeller"
        " borrows strength over types; the centred log ratio removes the effect that one share has on all others. A change is"
        " believable where they agree. Main types, smallest p first; `among` says of which cells a share is. Finer labels stand"
        " in the file."
    )
    mine = tests[(tests["unit"] == "patient") & (tests["test"] != "dunn")] if len(tests) else tests
    mine = mine[~mine["method"].isin(["kruskal", "diversity"])] if len(mine) else mine
    if mine.empty:
        return Section(id_, title, reading, empty("No contrast could be compared: " + context.why(STEP)))
    wide = mine[mine["level"] == MAIN]
    rows = by_p(wide if len(wide) else mine)
    most = min(context.max_rows, TESTS_SHOWN)
    source = f"{FOLDER}/composition_tests.tsv"
    table = report.table(named(rows), TEST_COLS, source, most, "no effect could be estimated", len(mine))
    return Section(id_, title, reading, table)


def _phases(context: Context, tests: pd.DataFrame) -> Section:
    title, id_ = "All phases together", "sc_composition_all"
    reading = (
        "Kruskal-Wallis over the phases with two patients or more: does any phase differ? Epsilon squared is the part of the"
        " spread of ranks that lies between phases, 0 to 1. Where patients have several samples, the test over samples stands"
        " beside it, marked exploratory. Dunn's pairs stand in the file."
    )
    mine = tests[(tests["method"] == "kruskal") & (tests["test"] == "kruskal_wallis")] if len(tests) else tests
    if mine.empty:
        return Section(id_, title, reading, empty("Three phases are needed for this test."))
    columns = [
        Col("level", "labels"), Col("denominator", "among"), Col("cell_type", "type"), Col("unit", "unit"),
        Col("groups", "n per phase"), Col("effect", "epsilon squared", "num"), Col("p_value", "p", "p"),
        Col("p_adjusted", "adjusted p", "p"), Col("evidence", "evidence"), Col("status", "status", "status"),
        Col("reason", "reason"),
    ]  # fmt: skip
    place = {MAIN: 0}
    order = numbers(mine, "p_value").assign(place=[place.get(level, 1) for level in mine["level"]])
    order = order.sort_values(["place", "p_value"], na_position="last", kind="stable")
    source = f"{FOLDER}/composition_tests.tsv"
    table = report.table(mine.loc[order.index], columns, source, min(context.max_rows, TESTS_SHOWN), context.why(STEP))
    return Section(id_, title, reading, table)


def _diversity(context: Context, diversity: pd.DataFrame, tests: pd.DataFrame) -> Section:
    title, id_ = "Diversity", "sc_composition_diversity"
    reading = (
        "How many types a sample would have if all were equally common (Hill number q1, e to the Shannon entropy), at the same"
        " number of cells in every sample; lines: 95 % interval of repeated draws of cells, which says nothing about another"
        " biopsy of the patient. Low diversity after therapy can mean that one type was spared or selected."
    )
    mine = diversity[diversity["index"] == "hill_q1"] if len(diversity) else diversity
    if len(mine):
        mine = numbers(mine, "value", "ci_low", "ci_high").dropna(subset=["value"])
    if not len(mine):
        return Section(id_, title, reading, empty("No sample has enough cells: " + context.why(STEP)))
    panel = mine["level"] + ", " + mine["denominator"]
    values = mine.assign(panel=panel, low=mine["ci_low"], high=mine["ci_high"])
    order = [name for name in dict.fromkeys(panel) if not name.startswith("clone")]
    drawn = strips(values, order[:MAX_STRIPS], context.phases(), context.phase_colours(), "effective types", zero=False)
    drawn_of = values.drop_duplicates("panel").set_index("panel")["n_cells_rarefied"]
    depth = ", ".join(f"{name}: {int(float(drawn_of[name]))}" for name in order)
    found = tests[(tests["method"] == "diversity") & (tests["test"] != "dunn")] if len(tests) else tests
    table = ""
    if len(found):
        rows = by_p(found)
        shown = named(rows).assign(cell_type=[INDEX_NAMES.get(name, name) for name in rows["cell_type"]])
        columns = [
            Col("level", "labels"), Col("denominator", "among"), Col("cell_type", "index"), Col("contrast", "contrast"),
            Col("n_patients_a", "patients A", "int"), Col("n_patients_b", "patients B", "int"), Col("effect", "effect", "num"),
            Col("ci_low", "95 % from", "num"), Col("ci_high", "to", "num"), Col("p_value", "p", "p"),
            Col("p_adjusted", "adjusted p", "p"), Col("p_min_attainable", "least possible p", "p"), Col("evidence", "evidence"),
            Col("status", "status", "status"),
        ]  # fmt: skip
        most = min(context.max_rows, 15)
        table = report.table(shown, columns, f"{FOLDER}/composition_tests.tsv", most, "no contrast", len(found))
    source = f'<p class="sc-source">Cells drawn per sample: {esc(depth)}. All indices: <code>{FOLDER}/diversity.tsv</code></p>'
    return Section(id_, title, reading, phase_legend(context) + drawn + source + table)


def _distance(context: Context) -> Section:
    title, id_ = "Distance between samples", "sc_composition_distance"
    reading = (
        "Bray-Curtis dissimilarity of the main types, 0 (same shares) to 1 (nothing in common), at the same number of cells in"
        " every sample. Samples in the order of the phases: a phase that is a world of its own shows as a pale square on the"
        " diagonal."
    )
    beta = context.tables.get("beta_diversity")
    if len(beta):
        beta = beta[(beta["level"] == MAIN) & (beta["denominator"] == ALL) & (beta["index"] == "bray_curtis")]
    if not len(beta):
        return Section(id_, title, reading, empty("Fewer than two samples have enough cells."))
    at = {}
    for row in beta.to_dict("records"):
        value = to_number(row["value"])
        at[row["sample_a"], row["sample_b"]] = at[row["sample_b"], row["sample_a"]] = None if value is None else round(value, 3)
    there = {name for pair in at for name in pair}
    names = [s for s in context.samples() if s in there]
    phase = dict(zip(context.design[keys.SAMPLE], context.design[keys.PHASE], strict=True))
    texts = [f"{s} ({phase[s]})" for s in names]
    values = [[0.0 if a == b else at.get((a, b)) for b in names] for a in names]
    plot = Heat(values, texts, texts, "Distance between samples", "sample", "sample", "Bray-Curtis dissimilarity")
    near = numbers(beta, "value").groupby("relation")["value"].agg(["mean", "size"])
    words = {"same_patient": "samples of one patient", "same_phase": "patients of one phase", "other": "other pairs"}
    lines = [
        f"{text}: mean {near.loc[key, 'mean']:.2f} ({count(int(near.loc[key, 'size']), 'pair')})"
        for key, text in words.items()
        if key in near.index
    ]
    return Section(id_, title, reading, items(lines), plot)
