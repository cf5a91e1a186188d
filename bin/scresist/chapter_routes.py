"""Chapter of the report: the card of resistance per patient and cohort, and the targets that reach every clone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.layout import Bar, Chapter, Context, Section, empty, items
from scresist.report import Col, count, esc, natural, number, to_number

STEP = "score_routes"
FOLDER = "05_evidence/routes"
COHORT = "cohort"
NAMES = {
    "pre_existing_clone": "A clone that was there before therapy was selected",
    "reprogramming": "Tumour cells changed their program",
    "microenvironment": "The surroundings of the tumour changed",
    "target_loss": "The drug's target was lost",
    "payload_handling": "Tumour cells handle the payload differently",
    "proliferation": "Tumour cells divide more",
    "emt": "Tumour cells became mesenchymal",
    "persister": "Cells survived in a resting state",
    "metabolism": "Tumour cells changed their metabolism",
    "t_cell_state": "T cells became weaker",
}
MARKS = {"supported": ("✓", "sc-ok"), "mixed": ("~", "sc-limited"), "not supported": ("✗", "sc-skipped"),
         "not assessable": ("?", "sc-skipped")}  # fmt: skip
UNITS = {"cell": "cells of one patient", "sample": "biopsies", "patient": "patients"}
PARTS = {
    "selection": ("selection of clones", "#0072B2"),
    "reprogramming": ("change within clones", "#D55E00"),
    "emergence": ("new clones", "#009E73"),
    "loss": ("lost clones", "#CC79A7"),
}
CARD_HEAD = {"route or line": 16, "word": 11, "speaks for it": 32, "speaks against it": 24, "decides nothing": 17}  # % of width
ORDER = {"1": "for", "-1": "against", "0": "neither"}
CAVEAT = (
    "Routes do not exclude each other. An interval within one patient counts cells, not biopsies: two biopsies of one tumour"
    " differ by more than it says, so a word about one patient is exploratory, however clear it sounds. A transcript of a"
    " target is not the protein on the surface: staining decides."
)


def routes(context: Context) -> Chapter:
    """Card per patient, card of the cohort, every item, the change divided between clones, targets, rules."""
    tables = context.tables
    card, rows = tables.get("route_card"), tables.get("route_items")
    title = "Resistance card"
    if card.empty:
        why = empty("No card: " + context.why(STEP))
        return Chapter("sc_routes", title, _intro(card), [Section("sc_routes_patients", "Per patient", "Not available.", why)])
    return Chapter(
        "sc_routes",
        title,
        _intro(card) + f"<p>{esc(CAVEAT)}</p>",
        [
            Section(
                "sc_routes_patients",
                "Per patient",
                "One card per patient with a biopsy before therapy and a later one. supported: at least two items speak for the"
                " route and at most half as many against it; mixed: some do; not supported: at least two could be judged and"
                " none does; not assessable: fewer than two could be judged.",
                _cards(context, card, rows),
            ),
            Section(
                "sc_routes_cohort",
                "Cohort",
                "The same rules with patients as the unit, one row per route and comparison of phases. Only rows with the"
                " evidence replicated (three patients a side or more) or limited (two) may be read as a finding.",
                _cohort(context, card),
            ),
            _divided(context),
            Section(
                "sc_routes_items",
                "Every item",
                "One row per patient and item. Positive values: higher in the first phase of the step. The interval decides the"
                " vote together with the rule's least size; a dash says on hover why there is no value.",
                _items(context, rows),
            ),
            _targets(context),
            _target_clones(context),
            Section(
                "sc_routes_rules",
                "The rules",
                "What counts for and against each route. The table is an input of the run and can be changed. down-up: down"
                " from baseline to response, then up.",
                report.table(
                    tables.get("route_rules_used"),
                    [
                        Col("route", "route or line"),
                        Col("item", "item"),
                        Col("question", "question"),
                        Col("feature", "looks at"),
                        Col("supports_when", "supports when"),
                        Col("against_when", "speaks against when"),
                        Col("threshold", "least size", "num", "in the unit of the value"),
                        Col("source", "source"),
                    ],
                    f"{FOLDER}/route_rules_used.tsv",
                    context.max_rows,
                ),
            ),
        ],
    )


def name_of(route: Any) -> str:
    """A route in plain words."""
    return NAMES.get(str(route), str(route).replace("_", " "))


def _intro(card: pd.DataFrame) -> str:
    text = (
        "A tumour can escape a drug in three ways: a resistant clone that was there from the start grows, cells of the same"
        " clone change what they express, or the surroundings of the tumour change and protect it. This card asks for each"
        " patient which of these the data support, on the basis of items that were laid down as rules beforehand."
    )
    lines = []
    if len(card):
        told = card[(card["kind"] == "route") & (card["contrast"] != "") & card["contrast"].notna()]
        for (patient, contrast), part in told.groupby([keys.PATIENT, "contrast"], sort=False):
            words = "; ".join(f"{name_of(row['route'])}: {row['word']}" for row in part.to_dict("records"))
            who = "Cohort" if patient == COHORT else f"{patient} (one patient, exploratory)"
            lines.append(f"{who}, {str(contrast).replace('_vs_', ' against ')}: {words}.")
        if not lines:
            lines = ["No patient has a biopsy before therapy and a later one: no route can be assessed."]
    return f"<p>{esc(text)}</p>" + (items(lines) if lines else "")


def _cards(context: Context, card: pd.DataFrame, rows: pd.DataFrame) -> str:
    mine = card[(card[keys.PATIENT] != COHORT) & card["contrast"].notna() & (card["contrast"] != "")]
    patients = sorted(set(mine[keys.PATIENT]), key=natural)
    html = []
    for patient in patients[: context.max_rows]:
        own = mine[mine[keys.PATIENT] == patient]
        contrast = str(own["contrast"].iloc[0]).replace("_vs_", " against ")
        html.append(f"<h4>{esc(patient)}, {esc(contrast)}</h4>")
        body = []
        for row in own.to_dict("records"):
            mark, css = MARKS.get(row["word"], ("?", "sc-skipped"))
            votes = rows[(rows[keys.PATIENT] == patient) & (rows["route"] == row["route"])]
            body.append(
                f'<tr><td><b>{esc(name_of(row["route"]))}</b></td><td class="{css}">{mark} {esc(row["word"])}</td>'
                f"<td>{_told(votes, '1')}</td><td>{_told(votes, '-1')}</td><td>{_undecided(votes)}</td></tr>"
            )
        head = "".join(f'<th style="width:{width}%">{esc(name)}</th>' for name, width in CARD_HEAD.items())
        html.append(
            f'<div class="sc-scroll"><table class="sc-table"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
            "</div>"
        )
    left = len(patients) - context.max_rows
    if left > 0:
        html.append(empty(f"{left} more patients in the file"))
    others = sorted(set(card[keys.PATIENT]) - set(patients) - {COHORT}, key=natural)
    if others:
        reasons = rows[rows[keys.PATIENT].isin(others)].drop_duplicates(keys.PATIENT).set_index(keys.PATIENT)["reason"].to_dict()
        html.append("<p>Not assessable:</p>" + items([f"{p}: {reasons.get(p) or 'no reason given'}" for p in others[:50]]))
    html.append(f'<p class="sc-source">As files: <code>{FOLDER}/route_card.tsv</code>, <code>{FOLDER}/route_items.tsv</code></p>')
    return "".join(html)


def _told(votes: pd.DataFrame, which: str) -> str:
    """The items with this vote: the question, what was measured with its interval."""
    lines = []
    for row in votes[votes["vote"] == which].to_dict("records"):
        n = to_number(row["n_cells"])
        behind = count(int(n), "cell") if n else UNITS.get(str(row["unit"]), str(row["unit"]))
        biopsies = count(int(to_number(row["n_samples"]) or 0), "biopsy", "biopsies")
        table = str(row["source_table"]).split(",", maxsplit=1)[0]
        lines.append(
            f"<li>{esc(row['question'])} <b>{esc(row['measured'])}: {_value(row)}</b>,"
            f" {esc(str(row['step']).replace('_vs_', ' against '))}; {esc(behind)}, {esc(biopsies)},"
            f' <a href="../{esc(table)}">table</a></li>'
        )
    return f'<ul class="sc-list">{"".join(lines)}</ul>' if lines else report.DASH


def _value(row: Mapping[str, Any]) -> str:
    low, high = number(row["ci_low"]), number(row["ci_high"])
    return esc(f"{number(row['value'])} {row['scale']} (95 % {low} to {high})")


def _undecided(votes: pd.DataFrame) -> str:
    """Items that do not vote: those without a clear change, and those that could not be estimated with their reason on hover."""
    names = [str(item).replace("_", " ") for item in votes["item"]]
    blind = votes["vote"].isna() | (votes["vote"] == "")
    flat = [name for name, vote in zip(names, votes["vote"], strict=True) if vote == "0"]
    unknown = [name for name, absent in zip(names, blind, strict=True) if absent]
    parts = [f"no clear change: {', '.join(flat)}"] if flat else []
    parts += [f"not estimable: {', '.join(unknown)}"] if unknown else []
    reasons = "; ".join(dict.fromkeys(str(reason) for reason in votes.loc[blind, "reason"].dropna() if reason))
    return f'<span title="{esc(reasons)}">{esc("; ".join(parts))}</span>' if parts else report.DASH


def _cohort(context: Context, card: pd.DataFrame) -> str:
    mine = card[card[keys.PATIENT] == COHORT]
    shown = mine.assign(name=[name_of(route) for route in mine["route"]])
    counted = card[(card[keys.PATIENT] != COHORT) & card["contrast"].notna() & (card["contrast"] != "")]
    held = counted[counted["word"] == "supported"].groupby(["contrast", "route"]).size().to_dict()
    total = counted.groupby(["contrast", "route"]).size().to_dict()
    shown["patients"] = [
        f"{held.get(key, 0)} of {total[key]}" if (key := (row["contrast"], row["route"])) in total else ""
        for row in mine.to_dict("records")
    ]
    return report.table(
        shown,
        [
            Col("contrast", "contrast"),
            Col("name", "route or line"),
            Col("word", "word"),
            Col("patients", "patients with support", help="patients with both biopsies whose own card says supported"),
            Col("n_supports", "for", "int"),
            Col("n_against", "against", "int"),
            Col("n_neutral", "neither", "int"),
            Col("n_not_estimable", "not estimable", "int"),
            Col("evidence", "evidence", help="the weakest among the items that could be judged"),
            Col("n_samples", "biopsies", "int"),
        ],
        f"{FOLDER}/route_card.tsv",
        context.max_rows,
        "no two phases of the cohort can be compared",
    )


def _divided(context: Context) -> Section:
    frame = context.tables.get("decomposition")
    done = frame[pd.to_numeric(frame["total"], errors="coerce").notna()] if len(frame) else frame
    data: dict[str, dict[str, float]] = {}
    for row in done.to_dict("records"):
        if str(row["score"]).startswith(keys.MODULE_PREFIX):
            values = {part: to_number(row[part]) for part in PARTS}
            data[f"{row[keys.PATIENT]} {row['contrast']}"] = {p: v for p, v in values.items() if v is not None}
    plot = Bar(data, PARTS, "Change of the resistance program, divided between clones", "part of the change (score)")
    plot = plot if data else None
    nothing = "no patient has tumour cells enough in two biopsies" if len(frame) else context.why(STEP)
    return Section(
        "sc_routes_decomposition",
        "Selection or change within clones",
        "Each bar is the change of the resistance program between two biopsies of a patient, divided exactly into four parts:"
        " shares of clones that shifted, cells that changed within their clone, clones that are new, clones that were lost."
        " Parts above 0 raise the program, parts below lower it; together they are the change. The table gives the intervals,"
        " over cells, and the same for single genes. n: tumour cells in the table.",
        before="" if plot else empty("No bars: " + nothing),
        plot=plot,
        after=report.table(
            frame,
            [
                Col(keys.PATIENT, "patient"),
                Col("contrast", "contrast"),
                Col("score", "score"),
                Col("total", "change", "num", "mean of the later minus mean of the earlier tumour cells"),
                Col("total_low", "95 % from", "num"),
                Col("total_high", "to", "num"),
                *(
                    column
                    for part, (label, _) in PARTS.items()
                    for column in (Col(part, label, "num"), Col(f"{part}_low", "from", "num"), Col(f"{part}_high", "to", "num"))
                ),
                Col("n_cells_b", "cells before", "int"),
                Col("n_cells_a", "cells later", "int"),
                Col("status", "status", "status"),
                Col("reason", "remark"),
            ],
            f"{FOLDER}/decomposition.tsv",
            context.max_rows,
            nothing,
        ),
    )


def _items(context: Context, rows: pd.DataFrame) -> str:
    known = rows.assign(
        side=[ORDER.get(str(vote), "not estimable") for vote in rows["vote"]],
        units=[UNITS.get(str(unit), str(unit)) for unit in rows["unit"]],
    )
    known = known[known["contrast"].notna() & (known["contrast"] != "")]
    return report.table(
        known,
        [
            Col(keys.PATIENT, "patient"),
            Col("step", "step"),
            Col("route", "route or line"),
            Col("item", "item"),
            Col("measured", "measured"),
            Col("value", "value", "num"),
            Col("ci_low", "95 % from", "num"),
            Col("ci_high", "to", "num"),
            Col("scale", "unit of the value"),
            Col("units", "unit of the interval"),
            Col("n_cells", "cells", "int"),
            Col("n_samples", "biopsies", "int"),
            Col("n_patients", "patients", "int"),
            Col("side", "vote"),
            Col("evidence", "evidence"),
            Col("status", "status", "status"),
            Col("reason", "remark"),
            Col("source_table", "table"),
        ],
        f"{FOLDER}/route_items.tsv",
        context.max_rows,
        "no patient or cohort has two phases to compare",
    )


def _targets(context: Context) -> Section:
    frame = context.tables.get("target_sets")
    shown = frame
    if len(frame):
        last = frame.groupby(keys.PATIENT, sort=False)[keys.PHASE].transform("last")
        best = (frame["rank"].fillna("") == "1") | (frame["rank"].fillna("") == "")
        shown = frame[(frame[keys.PHASE] == last) & best]
    return Section(
        "sc_routes_targets",
        "Targets that together reach the clones",
        "Per patient, in the last biopsy, the best single target, pair and triple of surface targets. A clone counts as reached"
        " when enough of its cells carry the transcript; cell coverage is a lower bound, because a transcript can be missed."
        " The clones of a biopsy taken at resistance are those that resist: a set has to reach them all; clones too small to be"
        " judged are named apart. The weakest clone is the one with the fewest reached cells. Off-target: the highest expression"
        " in normal cells of the same patient. These are hypotheses for staining, not a choice of treatment.",
        report.table(
            shown,
            [
                Col(keys.PATIENT, "patient"),
                Col(keys.PHASE, "phase"),
                Col("role", "role of the phase"),
                Col("n_targets", "targets", "int"),
                Col("targets", "set"),
                Col("clone_coverage", "clones reached", "share", "summed share of the clones that are positive for a member", 0),
                Col("ci_low", "95 % from", "share", "over draws of the clone counts", 0),
                Col("ci_high", "to", "share", "", 0),
                Col("smallest", "smallest set that reaches the goal"),
                Col("cell_coverage", "cells reached", "share", "cells with a transcript of any member", 0),
                Col("weakest_clone", "weakest clone"),
                Col("weakest_clone_cells", "its cells reached", "share", "", 0),
                Col("off_target", "off-target", "num", "CP10k, highest over members and normal types"),
                Col("off_target_type", "in"),
                Col("off_target_gene", "of"),
                Col("uncovered_clones", "clones not reached"),
                Col("unjudged_clones", "not judged", help="clones of fewer than 10 cells"),
                Col("n_cells", "tumour cells", "int"),
                Col("status", "status", "status"),
                Col("reason", "remark"),
                Col("drug_examples", "drug examples"),
            ],
            f"{FOLDER}/target_sets.tsv",
            context.max_rows,
            "no patient has tumour cells" if context.tables.has("target_sets") else context.why(STEP),
        ),
    )


def _target_clones(context: Context) -> Section:
    frame = context.tables.get("target_clones")
    shown = frame
    if len(frame):
        last = frame.groupby(keys.PATIENT, sort=False)[keys.PHASE].transform("last")
        shown = frame[(frame[keys.PHASE] == last) & (frame["positive"].fillna("") == keys.YES)]
    return Section(
        "sc_routes_target_clones",
        "Targets in each clone",
        "The last biopsy of each patient, targets that a clone is positive for; all others are in the file. CP10k: counts per"
        " 10,000 of the clone's summed counts. The share of cells is brought to the depth of the median tumour cell.",
        report.table(
            shown,
            [
                Col(keys.PATIENT, "patient"),
                Col(keys.PHASE, "phase"),
                Col("clone", "clone"),
                Col("share", "share of the tumour", "share", "", 0),
                Col("target", "target"),
                Col("gene", "gene"),
                Col("cp10k", "CP10k", "num", "", 2),
                Col("pct", "cells", "pct"),
                Col("n_cells", "cells of the clone", "int"),
            ],
            f"{FOLDER}/target_clones.tsv",
            context.max_rows,
            "no clone is positive for a listed target" if len(frame) else context.why(STEP),
        ),
    )
