"""The chapter on signals between cell types: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import chapter_communication, comparison, flow, io, keys, pair_tables, report, status
from scresist.chapter_communication import communication as chapter
from scresist.layout import Bar, Context, Heat

NASTY = "<img src=x onerror=alert(1)>"
PHASES = ("PRE", "RES", "POST")


@pytest.fixture
def context(tmp_path):
    """A context on the tables of a folder; one patient with three phases and two with one."""

    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name.replace('__', '.')}.tsv")
        phases = pd.DataFrame({"phase": PHASES, "time": [0, 1, 2], "order": [1, 2, 3], "colour": ["#000000"] * 3})
        io.write_tsv(phases, tmp_path / "phases.tsv")
        contrasts = pd.DataFrame({"contrast": ["POST_vs_RES", "mine"], "side_a": ["POST", "R"], "side_b": ["RES", NASTY]})
        io.write_tsv(contrasts, tmp_path / "contrasts.tsv")
        design = pd.DataFrame({"sample": ["a", "b", "c"], "patient": ["P1"] * 3, "phase": PHASES})
        rows = status.table(
            [status.StatusRow(chapter_communication.STEP, "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"1 phase {NASTY}")]
        )
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, design, None, empty, "", empty, [])

    return make


def ranknet():
    columns = [*flow.RANKNET_COLUMNS, *(f"{kind}_{p}" for kind in ("flow", "share", "scaled") for p in PHASES)]

    def row(contrast, pathway, rank, effect, p=None, cell_p=None, evidence=keys.REPLICATED, word=keys.OK, **more):
        made = {**dict.fromkeys(columns), "contrast": contrast, "pathway": pathway, "rank": rank, "effect": effect}
        share = None if effect is None else 0.5 + effect / 4
        made.update(p_value=p, p_adjusted=p, cell_p_adjusted=cell_p, cell_effect=effect, cell_effect_equal=effect, share_a=share,
                    share_b=None if share is None else 1 - share, evidence=evidence, status=word, cell_z=effect)  # fmt: skip
        return {**made, **more}

    rows = [
        row("POST_vs_RES", "TGFb", 1, 0.8, 0.02, 0.005),
        row("POST_vs_RES", "MHC-I", 2, -0.6, 0.3, 0.005),
        row("POST_vs_RES", "KIT", None, None, word=keys.NOT_ESTIMABLE, reason="every link ends at a type that a sample lacks"),
        row("POST_vs_RES", "EGF", 3, 0.4, 0.001, 0.005, cell_effect=-0.1),  # patients and cells disagree
        row("POST_vs_RES", "other:CALM1", 4, 0.9, 0.001, 0.005),
        row("mine", NASTY, 1, 0.5, None, 0.01, keys.SINGLE_PATIENT),
        row("phases", "TGFb", 1, 0.5, 0.03, 0.005),
        row("phases", "MHC-I", 2, 0.5, 0.03, 0.005),
    ]
    return pd.DataFrame(rows, columns=columns)


def by_phase():
    def row(phase, pathway, level, **more):
        return {**dict.fromkeys(flow.PHASE_COLUMNS), "phase": phase, "pathway": pathway, "level": level, "status": "ok", **more}

    rows = []
    given = {"TGFb": (0.3, 0.1, 0.6), "MHC-I": (0.2, 0.6, 0.2), "KIT": (None, None, None), NASTY: (0.3, 0.3, 0.4)}
    for pathway, shares in given.items():
        for phase, share in zip(PHASES, shares, strict=True):
            rows.append(row(phase, pathway, "pathway", flow=share, share=share))
            if share is None:
                continue
            rows.append(row(phase, pathway, "sender", source="B", flow=share, share=0.75, rank=1))
            rows.append(row(phase, pathway, "receiver", target=NASTY, flow=share, share=1, rank=1))
            for source in ("B", "Mast"):
                for target in ("B", "Mast", "Endothelial"):
                    gone = "Mast" in (source, target)
                    rows.append(row(phase, pathway, "types", source=source, target=target, flow=None if gone else share,
                                    status=keys.NOT_ESTIMABLE if gone else keys.OK))  # fmt: skip
    return pd.DataFrame(rows, columns=list(flow.PHASE_COLUMNS))


def drivers():
    def row(pathway, level, delta, contrast="POST_vs_RES", **more):
        return {**dict.fromkeys(flow.DRIVER_COLUMNS), "contrast": contrast, "pathway": pathway, "level": level, "delta": delta,
                "rank": 1, "status": keys.OK, **more}  # fmt: skip

    rows = [
        row("TGFb", "sender", 0.6, source="CD8_T"),
        row("TGFb", "sender", -0.9, source="B"),  # against the change: not its carrier
        row("TGFb", "receiver", 0.7, target="Endothelial"),
        row("TGFb", "interaction", 0.4, pair="TGFB1:TGFBR1", source="CD8_T", target="Endothelial", ligand_a=1.234, receptor_b=2),
        row("TGFb", "sender", None, source="Mast"),
        row(NASTY, "interaction", 0.3, "mine", pair=NASTY, source=NASTY, target=NASTY),
    ]
    return pd.DataFrame(rows, columns=list(flow.DRIVER_COLUMNS))


def absent():
    rows = [
        ("Mast", "b", "P1", "RES", 0, "yes", "POST_vs_RES,phases", keys.NOT_ESTIMABLE, ""),
        (NASTY, "a", "P1", "PRE", 3, "no", "", keys.NOT_ESTIMABLE, ""),
    ]
    return pd.DataFrame(rows, columns=list(flow.ABSENT_COLUMNS))


def by_id(made):
    return {section.id: section for section in made.sections}


def test_normal_tables(context):
    made = chapter(context(ranknet=ranknet(), comm_phase=by_phase(), pathway_drivers=drivers(), comm_absent=absent()))
    text = made.intro
    assert "POST against RES: TGFb higher, most of it sent by CD8_T and received by Endothelial (adjusted p 0.02" in text
    assert "exploratory (cells of the samples at hand, not patients): MHC-I lower." in text
    assert "EGF" not in text  # the two directions disagree
    assert "CALM1" not in text
    assert "Too few cells in a whole phase: Mast in RES." in text
    found = by_id(made)
    assert all(name.startswith("sc_communication_") for name in found)
    heat = found["sc_communication_phases"].plot
    assert isinstance(heat, Heat)
    assert heat.columns == list(PHASES)
    assert list(heat.rows)[:2] == ["TGFb", "MHC-I"]
    assert heat.values[0] == [0.3, 0.1, 0.6]
    assert heat.values[list(heat.rows).index("KIT")] == [None, None, None]
    bar = found["sc_communication_change_1"].plot
    assert isinstance(bar, Bar)
    assert bar.data["TGFb"] == {"a": 70.0, "b": 30.0}
    assert list(bar.data) == ["TGFb", "MHC-I", "EGF"]
    assert {cat: text for cat, (text, _) in bar.cats.items()} == {"a": "POST", "b": "RES"}
    matrix = found["sc_communication_map_1"]
    assert matrix.title == "Senders and receivers: TGFb"
    assert list(matrix.plot.rows) == ["B", "Endothelial", "Mast"]
    assert matrix.plot.columns[:3] == ["PRE: B", "PRE: Endothelial", "PRE: Mast"]
    assert matrix.plot.values[0][:3] == [0.3, 0.3, None]
    assert "B 75 %" in found["sc_communication_leaders"].before
    pairs = found["sc_communication_pairs"].before
    assert "TGFB1:TGFBR1" in pairs
    assert "1.23" in pairs
    assert "0.3" in found["sc_communication_tests"].before
    assert "POST_vs_RES, phases" in found["sc_communication_absent"].before
    assert "sc_communication_liana" not in found


def test_hostile_names_are_escaped(context):
    top = pd.DataFrame({"sample": ["a"], "source": [NASTY], "target": ["B"], "ligand": [NASTY], "receptor": ["R"],
                        "magnitude_rank": [0.001], "specificity_rank": [0.2]})  # fmt: skip
    made = chapter(
        context(ranknet=ranknet(), comm_phase=by_phase(), pathway_drivers=drivers(), comm_absent=absent(), a__liana_top=top)
    )
    found = by_id(made)
    assert "sc_communication_liana" in found
    for section in made.sections:
        assert NASTY not in section.before + section.after  # headings and labels are escaped by the page
    assert NASTY not in made.intro
    assert "&lt;img" in made.intro


def test_without_tables(context):
    made = chapter(context())
    assert [section.id for section in made.sections] == ["sc_communication_phases", "sc_communication_absent"]
    assert "1 phase &lt;img" in made.sections[0].before
    assert NASTY not in made.sections[0].before


def test_nothing_comparable_says_why(context):
    rows = ranknet()
    rows = rows[rows["pathway"] == "KIT"]
    made = chapter(context(ranknet=rows, comm_phase=pd.DataFrame(columns=list(flow.PHASE_COLUMNS))))
    assert "POST against RES: not comparable (every link ends at a type that a sample lacks)." in made.intro
    found = by_id(made)
    assert "every link ends at a type" in found["sc_communication_change_1"].before
    assert "No phases could be compared" in found["sc_communication_phases"].before


def test_prefix_of_unnamed_pathways_is_that_of_the_pair_tables():
    assert chapter_communication.OTHER == pair_tables.OTHER
    assert chapter_communication.ALL_PHASES == flow.ALL_PHASES
    assert np.all(flow.named(["other:A", "B"]) == [False, True])
    assert {column.name for column in chapter_communication.TEST_COLS} - {"status"} < set(flow.RANKNET_COLUMNS)
    assert set(comparison.TEST_COLUMNS) < set(flow.RANKNET_COLUMNS)
