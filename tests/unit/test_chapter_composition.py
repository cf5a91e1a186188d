"""The chapter on composition: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from scresist import chapter_composition, composition, io, keys, report, status
from scresist.chapter_composition import composition as chapter
from scresist.layout import Bar, Context, Heat

NASTY = "<img src=x onerror=alert(1)>"
DESIGN = pd.DataFrame(
    {"sample": ["a", "b", "c", "d"], "patient": ["P1", "P2", "P1", NASTY], "phase": ["PRE", "PRE", "POST", "POST"]}
)


@pytest.fixture
def context(tmp_path):
    """A context on the tables of a folder; two phases of two patients."""

    def make(**tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"{name}.tsv")
        phases = pd.DataFrame({"phase": ["PRE", "POST"], "time": [0, 1], "order": [1, 2], "colour": ["#000000", "#111111"]})
        io.write_tsv(phases, tmp_path / "phases.tsv")
        rows = status.table([status.StatusRow("test_composition", "cohort", "cohort", keys.SKIPPED_NO_INPUT, f"0 cells {NASTY}")])
        cells = pd.DataFrame({"kept": [True], "main_type": ["T"], "lineage": ["immune"]})
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), cells, DESIGN, None, empty, "", empty, [])

    return make


def proportions():
    rows = []
    for record in DESIGN.to_dict("records"):
        n = {"T": 30 if record["phase"] == "PRE" else 60, NASTY: 70 if record["phase"] == "PRE" else 40}
        for name, k in n.items():
            rows.append(
                (record["sample"], record["patient"], record["phase"], "", "main_type", "all", "immune", name, name, k, 100,
                 k / 100, k / 100 - 0.05, k / 100 + 0.05, 0.1, "ok")
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(composition.PROPORTION_COLUMNS))


def drawn_tests():
    def row(name, method, contrast, p, **more):
        made = {**dict.fromkeys(composition.TEST_COLUMNS), "level": "main_type", "denominator": "all", "cell_type": name}
        return {
            **made, "method": method, "contrast": contrast, "unit": "patient", "test": "rank_sum_exact", "effect": 0.3,
            "p_value": p, "p_adjusted": p, "mean_a": 0.6, "mean_b": 0.3, "evidence": "limited", "status": "ok", **more,
        }  # fmt: skip

    rows = [
        row("T", "rank", "POST_vs_PRE", 0.33, p_min_attainable=0.333),
        row("T", "propeller_arcsin", "POST_vs_PRE", 0.01),
        row(NASTY, "clr", "POST_vs_PRE", 0.002, evidence="single_patient"),
        row("T", "rank", "RES_vs_PRE", None, status="no_replicates", evidence="single_patient"),
        row("T", "kruskal", "phases", 0.04, test="kruskal_wallis", groups="PRE=2;POST=2"),
        row("T", "kruskal", "POST_vs_PRE", 0.0001, test="dunn"),
        row("hill_q1", "diversity", "POST_vs_PRE", 0.33),
    ]
    return pd.DataFrame(rows, columns=list(composition.TEST_COLUMNS))


def drawn_diversity():
    rows = [
        (r["sample"], r["patient"], r["phase"], "main_type", "all", "hill_q1", 1.8 + i / 10, 1.7, 2.3, 100, 100, "ok", "")
        for i, r in enumerate(DESIGN.to_dict("records"))
    ]
    return pd.DataFrame(rows, columns=list(composition.DIVERSITY_COLUMNS))


def beta():
    rows = [
        ("main_type", "all", "bray_curtis", "a", "b", "P1", "P2", "PRE", "PRE", "same_phase", 0.1, 0.05, 0.2, 100),
        ("main_type", "all", "bray_curtis", "a", "c", "P1", "P1", "PRE", "POST", "same_patient", 0.3, 0.2, 0.4, 100),
        ("main_type", "all", "jensen_shannon", "a", "c", "P1", "P1", "PRE", "POST", "same_patient", 0.9, 0.2, 0.4, 100),
    ]
    return pd.DataFrame(rows, columns=list(composition.BETA_COLUMNS))


def page_text(made):
    return made.intro + "".join(section.before + section.after for section in made.sections)


def test_sections_from_tables(context):
    made = chapter(
        context(proportions=proportions(), composition_tests=drawn_tests(), diversity=drawn_diversity(), beta_diversity=beta())
    )
    assert made.id == "sc_composition"
    sections = {section.id: section for section in made.sections}
    assert len(sections) == 6
    assert all(name.startswith("sc_composition_") for name in sections)
    text = page_text(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    # only what patients carry is worded; the method that found it is named; the design's limits are said
    assert "POST against PRE: T higher (60 % against 30 %; propeller, arcsine); adjusted p below 0.05." in made.intro
    assert "onerror" not in made.intro
    assert "POST_vs_PRE: so few patients that no rank test can give p below 0.05" in made.intro
    assert "RES_vs_PRE: fewer than two patients on a side; effects only, exploratory." in made.intro
    assert "Patients with cells: PRE 2, POST 2." in made.intro
    bars = sections["sc_composition_samples"].plot
    assert isinstance(bars, Bar)
    assert list(bars.data) == ["a (PRE, n=100)", "b (PRE, n=100)", "c (POST, n=100)", "d (POST, n=100)"]
    assert bars.data["a (PRE, n=100)"] == {"T": 30, NASTY: 70}
    table = sections["sc_composition_tests"].before
    assert table.index("centred log ratio, t") < table.index("propeller, arcsine") < table.index("rank test of shares")
    assert "0.0001" not in page_text(made)  # Dunn's pairs stay in the file
    assert "PRE=2;POST=2" in sections["sc_composition_all"].before
    assert "effective types (q1)" in sections["sc_composition_diversity"].before
    heat = sections["sc_composition_distance"].plot
    assert isinstance(heat, Heat)
    assert heat.rows == ["a (PRE)", "b (PRE)", "c (POST)"]
    assert heat.values == [[0.0, 0.1, 0.3], [0.1, 0.0, None], [0.3, None, 0.0]]
    assert "samples of one patient: mean 0.30 (1 pair)" in sections["sc_composition_distance"].before


def test_points_lie_where_the_values_are(context):
    made = chapter(context(proportions=proportions()))
    drawn = next(s for s in made.sections if s.id == "sc_composition_phases").before
    figures = [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", drawn)]
    assert len(figures) == 2
    found = {}
    for figure in figures:
        name = figure.get("aria-label").split(" by phase")[0]
        for circle in figure.iter("circle"):
            found[name, circle.find("title").text.split(":")[0]] = float(circle.get("cy"))
    assert found["T", "a"] > found["T", "c"]  # 30 % lies lower, further down the picture, than 60 %
    assert found["T", "a"] == found["T", "b"]
    # linear from 0 at the foot: 30 % is half as high as 60 %
    foot = chapter_composition.HEIGHT - chapter_composition.BOTTOM
    assert (foot - found["T", "a"]) * 2 == pytest.approx(foot - found["T", "c"], abs=0.3)


def test_without_findings_it_says_so(context):
    tests = drawn_tests().assign(p_adjusted=0.9)
    made = chapter(context(proportions=proportions(), composition_tests=tests))
    assert "No main type changed with an adjusted p below 0.05 in any contrast." in made.intro


def test_without_tables(context):
    made = chapter(context())
    assert [section.id for section in made.sections] == ["sc_composition_samples"]
    text = page_text(made)
    assert "0 cells &lt;img" in text
    assert NASTY not in text
    made = chapter(context(proportions=proportions().iloc[:0].assign(sample=[])))
    assert len(made.sections) == 1


def test_shares_alone(context):
    """Every section says why it is empty."""
    made = chapter(context(proportions=proportions().assign(status=keys.SKIPPED_TOO_FEW_CELLS)))
    sections = {section.id: section for section in made.sections}
    assert "No sample has enough cells." in sections["sc_composition_phases"].before
    assert "No contrast could be compared" in sections["sc_composition_tests"].before
    assert "Three phases are needed" in sections["sc_composition_all"].before
    assert "No sample has enough cells" in sections["sc_composition_diversity"].before
    assert "Fewer than two samples" in sections["sc_composition_distance"].before
