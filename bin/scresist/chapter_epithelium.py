"""Chapter of the report: states of the tumour cells, and where they occur."""

from __future__ import annotations

from typing import Any

import pandas as pd

from scresist import figures, keys, report
from scresist.layout import Bar, Chapter, Context, Section, empty, items, picture
from scresist.report import Col, count, listing, percent, to_number

FOLDER = "03_tumour/epithelium"
STEP = "subcluster_epithelium"
TITLE = "States of the tumour cells"
TOP_MARKERS = 8  # per state on the page
TITLES = {"cluster": "By state", "phase": "By phase", "patient": "By patient"}
READINGS = {
    "cluster": "each dot is a tumour cell, coloured by its state",
    "phase": "the same cells, coloured by the phase of their sample",
    "patient": "the same cells, coloured by patient; a state of one colour belongs to one patient",
}


def epithelium(context: Context) -> Chapter:
    """States, maps, composition, markers, resolutions."""
    states = context.tables.get("epi_clusters")
    if states.empty:
        sections = [
            Section("sc_epithelium_states", "States", "Not available.", empty("No states: " + context.why(STEP)))
        ]  # fmt: skip
        return Chapter("sc_epithelium", TITLE, "<p>Groups of tumour cells with like expression.</p>", sections)
    states = states.sort_values("cluster", key=lambda column: column.map(report.natural))
    label = {row["cluster"]: f"{row['cluster']} {row['name']}" for row in states.to_dict("records")}
    shares = context.tables.get("epi_composition")
    sections = [_states(context, states), _maps(context)]
    sections += [_samples(context, shares, label), _phases(context, shares, label)]
    sections += [_markers(context, label), _resolutions(context)]
    return Chapter("sc_epithelium", TITLE, _intro(states, context), sections)


def _intro(states: pd.DataFrame, context: Context) -> str:
    """What a reader without bioinformatics takes along."""
    total = sum(to_number(n) or 0 for n in states["n_cells"])
    lines = []
    for row in states.to_dict("records"):
        part = f"State {row['cluster']} ({row['name']}, {percent(to_number(row['n_cells']) or 0, total)} of the cells)"
        if row["occurrence"] == "private":
            share = percent(to_number(row["top_patient_share"]) or 0, 1)
            lines.append(f"{part}: {share} from patient {row['top_patient']}. A trait of this patient; no phase can be named.")
        elif row["occurrence"] == "exclusive":
            n = int(to_number(row["n_patients"]) or 0)
            lines.append(
                f"{part}: found almost only in {row['exclusive_phase']}, in {count(n, 'patient')}; that phase gives "
                f"{percent(to_number(row['top_phase_share_all']) or 0, 1)} of all tumour cells."
            )
    head = (
        f"<p>The tumour cells fall into {count(len(states), 'state')}: groups of cells that use like genes. A state can be a way"
        " of living (dividing, secreting, under stress) that cells enter and leave; it is not a clone.</p>"
    )
    if not lines:
        return head + "<p>Every state occurs in several patients and phases.</p>"
    return head + items(lines)


def _states(context: Context, states: pd.DataFrame) -> Section:
    columns = [
        Col("cluster", "state"),
        Col("name", "name", help="first marker gene; cycling when more than half of the cells divide"),
        Col("n_cells", "cells", "int"),
        Col("n_patients", "patients", "int"),
        Col("n_samples_present", "samples", "int", "samples with 20 tumour cells or more of which 5 % are in the state"),
        Col("occurrence", "occurs", help="private: 95 % from one patient; exclusive: 95 % from one phase and several patients"),
        Col("top_patient", "largest patient"),
        Col("top_patient_share", "its share", "share"),
        Col("top_phase", "largest phase"),
        Col("top_phase_share", "its share", "share"),
        Col("top_phase_share_all", "of all cells", "share", "share of that phase among all tumour cells: what chance would give"),
        Col("cycling_share", "cycling", "share", "cells whose cycle score exceeds that of random genes; about 5 % by chance"),
        Col("stability", "stability", "num", "mean best Jaccard index over ten subsamples of 80 % of the cells", 2),
    ]
    return Section(
        "sc_epithelium_states",
        "States and where they occur",
        "One row per state, the largest first. Read the largest patient's share before the phase: a state of one patient says"
        " nothing of a phase. Stability below about 0.6 means that the borders depend on the draw.",
        report.table(states, columns, f"{FOLDER}/epi_clusters.tsv", context.max_rows, context.why(STEP)),
    )


def _maps(context: Context) -> Section:
    found = context.tables.pictures("epi_map")
    parts = [
        f"<h4>{TITLES[name]}</h4>" + picture(found[name], f"Map of the tumour cells. {READINGS[name]}")
        for name in TITLES
        if found.get(name)
    ]
    reading = "Three times the same map (UMAP): " + "; ".join(READINGS[name] for name in TITLES) + ". Distances mean nothing."
    return Section(
        "sc_epithelium_map", "Map of the tumour cells", reading, "".join(parts) or empty("No map: " + context.why(STEP))
    )


def _samples(context: Context, shares: pd.DataFrame, label: dict[str, str]) -> Section:
    title, id_ = "States per sample", "sc_epithelium_samples"
    mine = shares[shares["level"] == "sample"] if "level" in shares else shares
    if mine.empty:
        return Section(id_, title, "Not available.", empty("No shares: " + context.why(STEP)))
    palette = figures.colours(list(label))
    phase = dict(zip(mine[keys.SAMPLE], mine[keys.PHASE], strict=True))
    n = {sample: int(to_number(total) or 0) for sample, total in zip(mine[keys.SAMPLE], mine["n_total"], strict=True)}
    held: dict[str, dict[str, float]] = {}
    for row in mine.to_dict("records"):
        held.setdefault(row[keys.SAMPLE], {})[row["cluster"]] = to_number(row["n_cells"]) or 0
    order = [s for s in context.samples() if s in held] + sorted(set(held) - set(context.samples()))
    data = {f"{s} ({phase[s]}, n={n[s]:,})": held[s] for s in order}
    cats = {name: (label[name], palette[name]) for name in label}
    return Section(
        id_,
        title,
        "One bar per sample, samples of one phase side by side (n = tumour cells). Few cells make wide intervals: they stand in"
        " the table (95 %, counting cells; two biopsies of one tumour differ by more).",
        plot=Bar(data, cats, "Tumour cells by state", "cells", True),
        after=f'<p class="sc-source">As a file: <code>{FOLDER}/epi_composition.tsv</code></p>',
    )


def _phases(context: Context, shares: pd.DataFrame, label: dict[str, str]) -> Section:
    title, id_ = "States per phase", "sc_epithelium_phases"
    mine = shares[shares["level"] == "phase"] if "level" in shares else shares
    if mine.empty:
        return Section(id_, title, "Not available.", empty("No shares: " + context.why(STEP)))
    palette = figures.colours(list(label))
    n: dict[str, Any] = dict(zip(mine[keys.PHASE], mine["n_patients"], strict=True))
    held: dict[str, dict[str, float]] = {}
    for row in mine.to_dict("records"):
        held.setdefault(row[keys.PHASE], {})[row["cluster"]] = round(100 * (to_number(row["share"]) or 0), 3)
    order = [p for p in context.phases() if p in held] + sorted(set(held) - set(context.phases()))
    data = {f"{p} (n={count(int(to_number(n[p]) or 0), 'patient')})": held[p] for p in order}
    cats = {name: (label[name], palette[name]) for name in label}
    return Section(
        id_,
        title,
        "One bar per phase: the mean over its patients of each state's share, so that a patient with many cells weighs no more"
        " than one with few. Shown, not tested; exploratory.",
        plot=Bar(data, cats, "Mean share of states per phase", "mean share over patients (%)"),
    )


def _markers(context: Context, label: dict[str, str]) -> Section:
    markers = context.tables.get("epi_markers")
    rows = []
    if len(markers):
        for name in label:
            part = markers[markers["cluster"] == name].head(TOP_MARKERS)
            if len(part):
                first = part.iloc[0]
                rows.append(
                    {
                        "cluster": label[name], "genes": listing(part["gene"].tolist(), TOP_MARKERS), "log2_fc": first["log2_fc"],
                        "pct_in": first["pct_in"], "pct_out": first["pct_out"], "n": int((markers["cluster"] == name).sum()),
                    }
                )  # fmt: skip
    columns = [
        Col("cluster", "state"),
        Col("genes", "marker genes, strongest first"),
        Col("log2_fc", "log2 fold change of the first", "num", digits=2),
        Col("pct_in", "cells positive inside", "pct"),
        Col("pct_out", "cells positive outside", "pct"),
    ]
    return Section(
        "sc_epithelium_markers",
        "Marker genes",
        "Genes that tell a state from all other tumour cells. The groups were found in the same data and the cell is the unit, so"
        " the order of the genes counts, not their p; exploratory. Their enrichment stands in the chapter on gene sets.",
        report.table(
            pd.DataFrame(rows), columns, f"{FOLDER}/epi_markers.tsv (50 genes per state)", context.max_rows, "one state only"
        ),
    )


def _resolutions(context: Context) -> Section:
    columns = [
        Col("resolution", "resolution"),
        Col("n_clusters", "states", "int"),
        Col("n_private", "of one patient", "int"),
        Col("ari_stability", "stability", "num", "mean adjusted Rand index over ten subsamples of 80 % of the cells", 2),
        Col("ari_to_primary", "agreement with the states above", "num", "adjusted Rand index, 1 = the same", 2),
        Col("primary", "in use", "bool"),
    ]
    table = context.tables.get("epi_resolutions")
    return Section(
        "sc_epithelium_resolutions",
        "How many states",
        "The number of states depends on a parameter, the resolution. A division that is stable and agrees over resolutions is"
        " more than a choice.",
        report.table(table, columns, f"{FOLDER}/epi_resolutions.tsv", context.max_rows, context.why(STEP)),
    )
