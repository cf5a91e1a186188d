"""Chapter of the report: the copy-number clones of each patient through therapy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from scresist import keys, report
from scresist.layout import Chapter, Context, Section, by_patient, empty, items, patients_without, picture
from scresist.report import Col, count, esc, listing, number, to_number

STEP = "trace_clones"
FOLDER = "03_tumour/copy_number/<patient>"
NOTABLE = ("emerging", "lost", "expanding", "shrinking", "higher", "lower")
WORDS = {
    "expanding": "grew",
    "shrinking": "receded",
    "lost": "was no longer found",
    "emerging": "was found only later",
    "higher": "was larger",
    "lower": "was smaller",
}
AGREEMENT = 0.8  # adjusted Rand index below which the second opinions are called different in words; chosen
CAVEAT = (
    "Intervals and p values count cells, not biopsies: two biopsies of one lesion differ by more than they say, so every"
    " change is exploratory. Clones are never matched between patients."
)


def clones(context: Context) -> Chapter:
    """Per patient: clones, their events, shares over phases, changes, tree, pictures."""
    tables = context.tables
    found = by_patient(tables.of_units("clones", keys.PATIENT))
    changes = by_patient(tables.of_units("clone_changes", keys.PATIENT))
    shares = by_patient(tables.of_units("clone_phases", keys.PATIENT))
    events = by_patient(tables.of_units("clone_events", keys.PATIENT))
    tree = by_patient(tables.of_units("clone_tree", keys.PATIENT))
    diversity = by_patient(tables.of_units("clone_diversity", keys.PATIENT))
    patients = list(dict.fromkeys(found["patient"])) if len(found) else []
    status = context.status[context.status["step"] == STEP]
    tested = changes[changes["status"] == keys.OK] if "status" in changes else changes
    nothing = "no patient has clones: " + (_why(status) or context.why(STEP))
    return Chapter(
        "clones",
        "Tumour clones through therapy",
        _intro(found, tested, status) + f"<p>{esc(CAVEAT)}</p>",
        [
            Section(
                "sc_clones_patients",
                "Clones of each patient",
                "One row per clone. Trunk events are in every clone of the patient, private ones in this clone only; + is a"
                " gain, - a loss of a chromosome arm. The last three columns ask other methods: an index of 1 means that they"
                " divide the cells the same way, 0 that they agree by chance only.",
                report.table(
                    found,
                    [
                        Col("patient", "patient"),
                        Col("clone", "clone"),
                        Col("n_cells", "malignant cells", "int"),
                        Col("n_phases", "phases", "int", "phases in which at least one cell was found"),
                        Col("trunk_events", "trunk"),
                        Col("shared_events", "shared", help="in some of the patient's clones"),
                        Col("private_events", "private"),
                        Col("mean_score", "mean score", "num", "mean of squares of the profile; depth raises it too"),
                        Col("ari_ward", "agreement with Ward", "num", "adjusted Rand index, tree cut at as many clones", 2),
                        Col("ari_ward_best", "with Ward's best cut", "num", "cut at the best silhouette over 2 to 8 clusters", 2),
                        Col(
                            "ari_reference_design",
                            "with reference by phase",
                            "num",
                            "low: a clone may be a technical difference between the phases",
                            2,
                        ),
                    ],
                    f"{FOLDER}.clones.tsv",
                    context.max_rows,
                    nothing,
                ),
                after=_doubts(found),
            ),
            Section(
                "sc_clones_changes",
                "Changes over therapy",
                "One row per clone and pair of phases; the difference is the share in the first phase of the contrast minus"
                " that in the second. emerging and lost are said only where enough cells were seen to exclude a share above"
                " the limit.",
                report.table(
                    _notable_first(changes),
                    [
                        Col("patient", "patient"),
                        Col("clone", "clone"),
                        Col("contrast", "contrast"),
                        Col("class", "change"),
                        Col("n_a", "cells A", "int", "cells of the clone in the first phase"),
                        Col("N_a", "of", "int", "malignant cells of the first phase"),
                        Col("n_b", "cells B", "int", "cells of the clone in the second phase"),
                        Col("N_b", "of", "int", "malignant cells of the second phase"),
                        Col("diff", "difference of shares", "num", "share A minus share B, 0 to 1", 2),
                        Col("ci_low", "95 % from", "num", "Newcombe's interval, over cells", 2),
                        Col("ci_high", "to", "num", "Newcombe's interval, over cells", 2),
                        Col("p_adjusted", "adjusted p", "p", "Fisher's exact test over cells, Benjamini-Hochberg over clones"),
                        Col("evidence", "evidence", help="cell_level: exploratory, cells are not independent"),
                        Col("status", "status", "status"),
                    ],
                    f"{FOLDER}.clone_changes.tsv",
                    context.max_rows,
                    "no patient has malignant cells in two phases" if len(found) else nothing,
                ),
            ),
            Section(
                "sc_clones_flow",
                "Shares of clones over phases",
                "Left: share of each clone, streams join neighbouring phases and say nothing about the time between. Right:"
                " the same shares with simultaneous 95 % intervals (Goodman); an open triangle is the share that could have"
                " been missed.",
                _pictures(context, "clone_flow", patients, "shares of the clones over the phases", nothing),
            ),
            Section(
                "sc_clones_heatmap",
                "Copy-number profiles of single cells",
                "One row per malignant cell, sorted by clone, then phase (side bars); one column per gene in genome order."
                " Red: more expression than in the patient's normal cells over a hundred neighbouring genes (gain), blue:"
                " less (loss).",
                _pictures(context, "cnv_heatmap", patients, "copy-number profile of each malignant cell", nothing),
            ),
            Section(
                "sc_clones_tree",
                "Order of events",
                "What clones share came before what tells them apart. Each line: the events gained on the way from the line"
                " above; a loss of an event is not considered, and one that happened twice counts as shared.",
                _trees(tree, patients, context.max_rows) if len(tree) else empty(nothing),
            ),
            Section(
                "sc_clones_events",
                "Events of each clone",
                "Arms and segments whose mean lies beyond the reference; mean z is the distance from normal cells in standard"
                " deviations of single cells, so that 2 can be seen in one cell.",
                report.table(
                    events,
                    [
                        Col("patient", "patient"),
                        Col("clone", "clone"),
                        Col("level", "level"),
                        Col("event", "event"),
                        Col("scope", "scope"),
                        Col("mean_z", "mean z", "num", "reference standard deviations", 2),
                        Col("n_genes", "genes", "int", "arm: genes in use; segment: stored genes, every n-th of those in use"),
                        Col("first_gene", "from"),
                        Col("last_gene", "to"),
                    ],
                    f"{FOLDER}.clone_events.tsv",
                    context.max_rows,
                    "no arm or segment is shifted in any clone" if len(found) else nothing,
                ),
            ),
            Section(
                "sc_clones_diversity",
                "Diversity of the tumour by phase",
                "Effective number of clones (Hill q1) and Shannon entropy, rarefied to the patient's smallest phase of 50"
                " cells or more; a dash: fewer cells.",
                report.table(
                    _indices(diversity),
                    [
                        Col("patient", "patient"),
                        Col("phase", "phase"),
                        Col("n_cells", "malignant cells", "int"),
                        Col("n_cells_rarefied", "compared at", "int", "cells drawn from each phase"),
                        Col("index", "index"),
                        Col("value", "value", "num", "", 2),
                        Col("ci_low", "95 % from", "num", "", 2),
                        Col("ci_high", "to", "num", "", 2),
                        Col("status", "status", "status"),
                    ],
                    f"{FOLDER}.clone_diversity.tsv",
                    context.max_rows,
                    nothing,
                ),
            ),
            Section(
                "sc_clones_shares",
                "Shares as numbers",
                "Where no cell of a clone was found, the detection limit is the share that would have shown one with 95 %"
                " probability.",
                report.table(
                    shares,
                    [
                        Col("patient", "patient"),
                        Col("clone", "clone"),
                        Col("phase", "phase"),
                        Col("n", "cells", "int"),
                        Col("N", "of", "int", "malignant cells of the phase"),
                        Col("share", "share", "share", "", 1),
                        Col("ci_low", "95 % from", "share", "Goodman's simultaneous interval", 1),
                        Col("ci_high", "to", "share", "Goodman's simultaneous interval", 1),
                        Col("detection_limit", "detection limit", "share", "for clones without a cell", 1),
                    ],
                    f"{FOLDER}.clone_phases.tsv",
                    context.max_rows,
                    nothing,
                ),
            ),
            patients_without(
                context, STEP, ("sc_clones_without", "Patients without clones"),
                "Why no clones were traced, or what limits them.",
                status,
                "malignant cells",
                "clones were traced in every patient without a remark",
            ),
        ],
    )


def _notable_first(changes: pd.DataFrame) -> pd.DataFrame:
    """Within a patient the changes that have a name stand first."""
    if changes.empty:
        return changes
    place = changes["class"].map({word: at for at, word in enumerate(NOTABLE)}).fillna(len(NOTABLE))
    return by_patient(changes.assign(_place=place).sort_values("_place", kind="stable").drop(columns="_place"))


def _indices(diversity: pd.DataFrame) -> pd.DataFrame:
    return diversity[diversity["index"].isin(["hill_q1", "shannon"])] if "index" in diversity else diversity


def _why(status: pd.DataFrame) -> str:
    words = status["status"].value_counts().sort_index()
    return listing([f"{word} in {count(int(n), 'patient')}" for word, n in words.items()])


def _intro(found: pd.DataFrame, tested: pd.DataFrame, status: pd.DataFrame) -> str:
    """What a clinician reads first."""
    text = (
        "A tumour can be made of several clones: groups of cells that descend from one cell and carry the same gains and"
        " losses of chromosome parts. A clone that grows under therapy may carry the resistance. Here the clones of each"
        " patient are found once, over all biopsies, and then counted in each phase of therapy."
    )
    if len(found):
        sizes = found["patient"].value_counts()
        several = int((sizes > 1).sum())
        text += (
            f" Clones were traced in {count(len(sizes), 'patient')}: {len(found)} in all; {count(several, 'patient')}"
            f" {'has' if several == 1 else 'have'} more than one."
        )
    elif len(status):
        text += f" In this run no clone could be traced ({_why(status)})."
    lines = _stories(tested)
    return f"<p>{esc(text)}</p>" + (items(lines) if lines else "")


def _stories(tested: pd.DataFrame) -> list[str]:
    """One sentence per patient: what its last contrast says, with numbers."""
    lines = []
    for patient, rows in tested.groupby("patient", sort=False) if len(tested) else ():
        last = rows[rows["contrast"] == rows["contrast"].iloc[-1]]
        moved = [_story(row) for row in last.to_dict("records") if row["class"] in WORDS]
        told = "; ".join(moved) if moved else "no clone changed its share beyond the interval"
        lines.append(
            f"{patient}, {last['contrast'].iloc[0].replace('_vs_', ' against ')}: {told} (exploratory: cells, one patient)."
        )
    return lines


def _story(row: Mapping[str, Any]) -> str:
    before, after = (_percent(row[f"n_{side}"], row[f"N_{side}"]) for side in "ba")
    return f"{row['clone']} {WORDS[row['class']]} ({before} to {after})"


def _percent(n: Any, total: Any) -> str:
    return report.percent(to_number(n) or 0.0, to_number(total) or 0.0)


def _doubts(found: pd.DataFrame) -> str:
    """In words, the patients whose clones another method divides differently."""
    lines = []
    for column, what in (
        ("ari_ward", "Ward's tree, cut at as many clones, divides the cells differently"),
        ("ari_reference_design", "with the normal cells of each phase as reference the clones come out differently"),
    ):
        for row in found.drop_duplicates("patient").to_dict("records") if len(found) else ():
            value = to_number(row.get(column))
            if value is not None and value < AGREEMENT:
                lines.append(f"{row['patient']}: {what} (index {number(value, 2)}); read its clones with care.")
    return items(lines) if lines else ""


def _pictures(context: Context, kind: str, patients: Sequence[str], alt: str, nothing: str) -> str:
    """The picture of each patient with clones, at most as many as tables have rows."""
    drawn = context.tables.pictures(kind)
    shown = [patient for patient in patients if patient in drawn]
    if not shown:
        return empty(nothing)
    html = "".join(
        f"<h4>{esc(patient)}</h4>" + picture(drawn[patient], f"{patient}: {alt}") for patient in shown[: context.max_rows]
    )
    left = len(shown) - context.max_rows
    return html + (empty(f"{left} more as files: {FOLDER}.{kind}.png") if left > 0 else "")


def _trees(tree: pd.DataFrame, patients: Sequence[str], most: int) -> str:
    """Nested lists from the rows of kind `branch`."""
    html = []
    for patient in patients[:most]:
        rows = tree[(tree["patient"] == patient) & (tree["kind"] == "branch")]
        below: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows.to_dict("records"):
            below.setdefault(row["clone_a"], []).append(row)
        html.append(f"<h4>{esc(patient)}</h4>" + _nested(below, "normal", set()))
    left = len(patients) - most
    return "".join(html) + (empty(f"{left} more as files: {FOLDER}.clone_tree.tsv") if left > 0 else "")


def _nested(below: Mapping[str, Sequence[Mapping[str, Any]]], parent: str, seen: set[str]) -> str:
    if parent in seen or parent not in below:
        return ""
    lines = []
    for row in below[parent]:
        gained = "no further event" if report.is_missing(row["gained_events"]) else row["gained_events"].replace(",", ", ")
        name = "common ancestor" if str(row["clone_b"]).startswith("node") else str(row["clone_b"])
        lines.append(f"<li><b>{esc(name)}</b>: {esc(gained)}{_nested(below, row['clone_b'], seen | {parent})}</li>")
    return f'<ul class="sc-list">{"".join(lines)}</ul>'
