"""Chapter of the report: states of T and NK cells over the phases, beside the checkpoint genes."""

from __future__ import annotations

import pandas as pd

from scresist import figures, keys, report
from scresist.chapter_composition import blocked, by_p, numbers, strips, untested
from scresist.layout import Chapter, Context, Heat, Line, Section, comparison_columns, empty, items, phase_legend
from scresist.report import Col, listing, to_number

FOLDER = "04_microenvironment/tcells"
STEP = "score_tcells"
ALPHA = 0.05
CLAIMS = (keys.REPLICATED, keys.LIMITED)
TESTS_SHOWN = 30
CHECKPOINT = "checkpoint"
POOLED = "t_cell"
TYPE_NAMES = {POOLED: "all T cells"}
UNIT = "score (difference of ln values)"


def tcells(context: Context) -> Chapter:
    """Scores per phase and sample, checkpoint genes, patients over time, tests."""
    values = context.tables.get("tcell_values")
    title = "States of T and NK cells"
    known = numbers(values, "mean", "n_cells").dropna(subset=["mean"]) if len(values) else values
    if not len(known):
        why = empty("No scores: " + context.why(STEP))
        intro = "<p>Whether T cells are exhausted, able to kill, or at rest.</p>"
        return Chapter("sc_tcells", title, intro, [Section("sc_tcells_phases", "States over phases", "Not available.", why)])
    tests = context.tables.get("tcell_tests")
    sections = [
        _phases(context, known),
        _checkpoint(context),
        _points(context, known),
        _patients(context, known),
        _tests(context, tests),
    ]
    return Chapter("sc_tcells", title, _intro(tests), sections)


def name_of(score: str) -> str:
    """The state of a score's column."""
    return score.removesuffix("_score").replace("_", " ")


def text_of(score: str, cell_type: str) -> str:
    """State and cells in words."""
    return f"{name_of(score)}, {TYPE_NAMES.get(cell_type, cell_type)}"


def _intro(tests: pd.DataFrame) -> str:
    """What a clinician reads first."""
    head = (
        "<p>T cells that meet their target again and again become exhausted: they carry several inhibitory receptors (PD-1,"
        " TIM-3, LAG-3, TIGIT) and kill less. Four states are scored in every T and NK cell: exhaustion, cytotoxic (tools of"
        " killing), naive (at rest, with the memory-like cells) and regulatory. A score compares the genes of a state with"
        " other genes of like expression; 0 is no more than those. A transcript is not the protein, and receptors also rise on"
        " cells that have just been activated: exhaustion by transcript alone is a hint.</p>"
    )
    lines = []
    mine = tests[(tests["test"] != "dunn") & (tests["contrast"] != "phases")] if len(tests) else tests
    if len(mine):
        found = numbers(mine, "p_adjusted", "effect")
        found = found[(found["p_adjusted"] < ALPHA) & found["evidence"].isin(CLAIMS)]
        for contrast, part in found.groupby("contrast", sort=False):
            told = [
                f"{text_of(r['score'], r['cell_type'])} {'higher' if r['effect'] > 0 else 'lower'}"
                for r in part.to_dict("records")
            ]
            lines.append(f"{str(contrast).replace('_vs_', ' against ')}: {listing(told)}; adjusted p below {ALPHA:g}.")
        if found.empty:
            lines.append(f"No state changed with an adjusted p below {ALPHA:g} between patients.")
        if names := blocked(mine):
            lines.append(f"{listing(names)}: so few patients that no rank test can give p below {ALPHA:g}; read the effects.")
        if names := untested(mine):
            lines.append(f"{listing(names)}: fewer than two patients on a side; effects only, exploratory.")
    return head + items(lines)


def phase_means(known: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Mean over the patients of a phase, samples of a patient weighted by cells: `by`, phase, mean, size."""
    made = known.assign(product=known[column] * known["n_cells"])
    patients = made.groupby([*by, keys.PHASE, keys.PATIENT], sort=False)[["product", "n_cells"]].sum().reset_index()
    patients["value"] = patients["product"] / patients["n_cells"]
    return patients.groupby([*by, keys.PHASE], sort=False)["value"].agg(["mean", "size"]).reset_index()


def _heat(context: Context, means: pd.DataFrame, by: list[str], texts: dict[tuple[str, ...], str], title: str, unit: str) -> Heat:
    phases = [p for p in context.phases() if p in set(means[keys.PHASE])]
    at = {(*(row[name] for name in by), row[keys.PHASE]): round(float(row["mean"]), 3) for row in means.to_dict("records")}
    rows = [[at.get((*key, phase)) for phase in phases] for key in texts]
    return Heat(rows, phases, list(texts.values()), title, "phase", "state, cells", unit)


def _phases(context: Context, known: pd.DataFrame) -> Section:
    means = phase_means(known, ["score", "cell_type"], "mean")
    texts = {
        (r["score"], r["cell_type"]): text_of(r["score"], r["cell_type"])
        for r in known.drop_duplicates(["score", "cell_type"]).to_dict("records")
    }
    return Section(
        "sc_tcells_phases",
        "States over phases",
        "Colour: mean score over the patients of a phase. Compare along a row: the genes of different states have different"
        " levels. White: too few cells in every sample.",
        plot=_heat(context, means, ["score", "cell_type"], texts, "States of T and NK cells", UNIT),
        after=f'<p class="sc-source">Per sample, with quartiles: <code>{FOLDER}/tcell_values.tsv</code></p>',
    )


def _checkpoint(context: Context) -> Section:
    title, id_ = "Checkpoint genes beside them", "sc_tcells_checkpoint"
    reading = (
        "Percentage of T cells with at least one count of the gene, mean over the patients of a phase: the inhibitory receptors"
        " one by one, from the table of panels. Exhaustion and the receptors should tell the same story; where one receptor"
        " alone moves, the score follows only a little."
    )
    values = context.tables.get("panel_values")
    if len(values):
        chosen = (values["panel"] == CHECKPOINT) & ~values["gene"].isin(["set_score", "set_mean"])
        values = values[chosen & values["cell_type"].isin([POOLED, *set(context.tables.get("tcell_values")["cell_type"])])]
        values = numbers(values, "pct", "n_cells").dropna(subset=["pct"])
    if not len(values):
        return Section(id_, title, reading, empty("No checkpoint genes were followed: " + context.why("track_panels")))
    means = phase_means(values, ["gene", "cell_type"], "pct")
    order = values.drop_duplicates(["cell_type", "gene"]).to_dict("records")
    order.sort(key=lambda r: (r["cell_type"] != POOLED, r["cell_type"], r["gene"]))
    texts = {(r["gene"], r["cell_type"]): f"{r['gene']}, {TYPE_NAMES.get(r['cell_type'], r['cell_type'])}" for r in order}
    plot = _heat(context, means, ["gene", "cell_type"], texts, "Checkpoint genes", "cells positive (%)")
    return Section(id_, title, reading, plot=plot)


def _points(context: Context, known: pd.DataFrame) -> Section:
    panel = [text_of(s, t) for s, t in zip(known["score"], known["cell_type"], strict=True)]
    values = known.assign(panel=panel, value=known["mean"])
    drawn = strips(values, list(dict.fromkeys(panel)), context.phases(), context.phase_colours(), "score", zero=False)
    return Section(
        "sc_tcells_samples",
        "Samples by phase",
        "One point per sample (name and value on hover); the bar is the mean over patients. n = samples with enough cells.",
        phase_legend(context) + drawn,
    )


def _patients(context: Context, known: pd.DataFrame) -> Section:
    title, id_ = "Patients through therapy", "sc_tcells_patients"
    reading = "One line per patient with two ordered phases or more. Primary resistance lies beside the axis and is not drawn."
    phases = context.tables.get("phases")
    if "time" not in phases or "phase" not in phases:
        return Section(id_, title, reading, empty("No phase has a place on the time axis."))
    time = {p: to_number(t) for p, t in zip(phases["phase"], phases["time"], strict=True) if to_number(t) is not None}
    timed = known[known[keys.PHASE].isin(list(time))]
    data: dict[str, dict[str, dict[float, float]]] = {}
    for (score, cell_type), part in timed.groupby(["score", "cell_type"], sort=False):
        lines: dict[str, dict[float, float]] = {}
        for patient, own in part.groupby(keys.PATIENT, sort=True):
            points = {
                float(at): round(float((group["mean"] * group["n_cells"]).sum() / group["n_cells"].sum()), 4)
                for at, group in own.groupby(own[keys.PHASE].map(time), sort=True)
            }
            if len(points) > 1:
                lines[str(patient)] = points
        if lines:
            data[text_of(str(score), str(cell_type))] = lines
    if not data:
        return Section(id_, title, reading, empty("No patient has two ordered phases with enough T cells."))
    people = sorted({patient for lines in data.values() for patient in lines}, key=report.natural)
    axis = ", ".join(f"{int(t) if t == int(t) else t} = {p}" for p, t in sorted(time.items(), key=lambda item: item[1]))
    plot = Line(data, "States through therapy", f"phase ({axis})", UNIT, figures.colours(people))
    return Section(id_, title, reading, plot=plot)


def _tests(context: Context, tests: pd.DataFrame) -> Section:
    title, id_ = "Between patients", "sc_tcells_tests"
    reading = (
        "One value per patient. Sorted by p, then by the size of the effect. Where the least possible p exceeds 0.05, read"
        " effect and interval only. `phases`: Kruskal-Wallis over all phases, its effect is epsilon squared, 0 to 1. Adjusted"
        " over states and cell types (Benjamini-Hochberg). Dunn's pairs stand in the file."
    )
    mine = tests[tests["test"] != "dunn"] if len(tests) else tests
    if not len(mine):
        return Section(id_, title, reading, empty("No contrast could be compared: " + context.why(STEP)))
    rows = by_p(mine)
    rows = rows.assign(state=[name_of(s) for s in rows["score"]])
    columns = [
        Col("state", "state"),
        Col("cell_type", "cells"),
        *comparison_columns(),
    ]
    most = min(context.max_rows, TESTS_SHOWN)
    return Section(id_, title, reading, report.table(rows, columns, f"{FOLDER}/tcell_tests.tsv", most, "no effect", len(mine)))
