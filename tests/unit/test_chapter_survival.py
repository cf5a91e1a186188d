"""The chapter on survival: from tables to sections, with hostile names and without tables."""

from __future__ import annotations

import html

import pandas as pd
import pytest

from scresist import io, keys, report, status
from scresist.chapter_survival import survival as chapter
from scresist.layout import Context

NASTY = "<img src=x onerror=alert(1)>"
PNG = b"\x89PNG\r\n\x1a\nnot drawn here"


@pytest.fixture
def context(tmp_path):
    """A context on the tables of a folder."""

    def make(pictures=(), **tables):
        for name, frame in tables.items():
            io.write_tsv(frame, tmp_path / f"acrg.{name}.tsv")
        for name in pictures:
            (tmp_path / f"acrg.{name}.png").write_bytes(PNG)
        rows = status.table([status.StatusRow("test_survival", "cohort", "acrg", keys.NOT_ESTIMABLE, f"0 events {NASTY}")])
        empty = pd.DataFrame()
        return Context(report.Tables(tmp_path), rows.astype(object), empty, empty, None, empty, "", empty, [])

    return make


def summary(**more):
    row = {
        "dataset": "acrg", "endpoint": f"OS {NASTY}", "time_unit": "months", "n_clinical": 300, "n_expression": 300,
        "n_patients": 299, "n_events": 152, "median": 77.2, "median_ci_low": 46.8, "median_ci_high": None,
        "median_follow_up": 80.1, "n_markers": 3, "n_estimated": 2, "status": "warning", "reason": f"gene_absent: {NASTY}",
    }  # fmt: skip
    return pd.DataFrame([{**row, **more}])


def cox(padj=0.001):
    head = ("acrg", "OS", "univariate")
    rows = [
        ("ZEB1", "gene", *head, "sd", 299, 152, 1.48, 1.27, 1.72, padj / 2, padj, 0.59, 0.2, "ok", ""),
        (
            "MUC3A",
            "gene",
            *head,
            "sd",
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            None,
            keys.NOT_ESTIMABLE,
            "gene_absent: x",
        ),
        ("late", "signature", *head, "sd", 299, 152, 1.1, 0.9, 1.3, 0.4, 0.4, 0.5, 0.2, "ok", ""),
        (NASTY, "signature", *head, "sd", 299, 152, 1.2, 1.0, 1.4, 0.2, 0.4, 0.5, 0.2, "ok", ""),
    ]
    columns = ["marker", "kind", "dataset", "endpoint", "model", "per", "n", "events", "hr", "ci_low", "ci_high", "p", "padj",
               "concordance", "ph_p", "status", "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def logrank(scanned=True):
    rows = [("acrg", "ZEB1", "median", ">", 2.5, "low=150;high=149", 6.2, 1, 0.013, False, "declared", "ok", "")]
    if scanned:
        rows.append(
            ("acrg", NASTY, "scan", ">", 9.87654, "", 24.0, 1, 0.004, True, "exploratory", "warning", "scanned: the best")
        )
    columns = ["dataset", "marker", "cut", "operator", "cut_value", "groups", "chi2", "df", "p", "scanned", "evidence", "status",
               "reason"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).assign(kind="gene")


def groups():
    rows = [("acrg", "ZEB1", "gene", 12, "months", 3, 48, 248, 0.08, 0.01, 0.15, 0.02, 0.02, 1e-9, "replicated", "ok")]
    columns = ["dataset", "marker", "kind", "split_time", "time_unit", "n_unknown", "n_patients_a", "n_patients_b", "effect",
               "ci_low", "ci_high", "p_value", "p_adjusted", "p_min_attainable", "evidence", "status"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def text_of(made):
    return made.intro + "".join(section.title + section.before + section.after for section in made.sections)


def test_sections_from_tables(context):
    made = chapter(
        context(
            ("kaplan_meier", "hazard_ratios"), survival_summary=summary(), cox=cox(), logrank=logrank(), survival_groups=groups(),
            km=pd.DataFrame({"time": [0]}),
        )
    )  # fmt: skip
    assert made.id == "sc_survival"
    sections = {section.id: section for section in made.sections}
    assert list(sections) == [
        f"sc_survival_{name}" for name in ("cohorts", "ratios", "cox", "curves", "logrank", "scan", "groups")
    ]
    text = text_of(made)
    assert NASTY not in text
    assert "&lt;img src=x" in text
    assert "299 patients, 152 events" in made.intro
    assert "ZEB1 hazard ratio 1.48 per SD (95 % 1.27 to 1.72), adjusted p 0.001" in made.intro
    assert "not measured there, so nothing can be said about MUC3A" in made.intro
    assert "77.2 months (46.8 to –)" in sections["sc_survival_cohorts"].before
    for name in ("ratios", "curves"):
        assert "data:image/png;base64," in sections[f"sc_survival_{name}"].before
    # gene sets by p, whatever their order in the file
    shown = sections["sc_survival_cox"].before
    assert shown.index("ZEB1") < shown.index("&lt;img") < shown.index("late")
    # a scanned cut stands in its own section with its warning, and nowhere else
    assert "9.87654" not in sections["sc_survival_logrank"].before
    assert "9.87654" in sections["sc_survival_scan"].before
    assert "exploratory" in sections["sc_survival_scan"].title
    assert "Warning" in sections["sc_survival_scan"].reading
    assert "12 months" in sections["sc_survival_groups"].before


def test_only_ratios_without_a_warning_are_claimed(context):
    frame = cox().astype(object)
    few = {"marker": "KRAS", "padj": 0.0013, "p": 0.0013, "hr": 5.2, "events": 4, "status": "warning",
           "reason": "few_events: 4 found, 10 advised; not_proportional: the ratio changes with time (p 0.01); it is an average"}
    first = frame.iloc[0].to_dict()
    frame.loc[len(frame)] = {**first, **few}
    frame.loc[len(frame)] = {**first, "marker": "TP53", "padj": None, "p": 0.001}
    made = chapter(context(survival_summary=summary(), cox=frame))
    claimed, exploratory = made.intro.split("acrg: exploratory, to be seen again in more patients: ")
    assert "Related to the outcome: ZEB1 hazard ratio 1.48" in claimed
    assert "KRAS" not in claimed
    assert exploratory.startswith("KRAS hazard ratio 5.20 per SD")
    assert "(4 events; few events, a ratio that changes with time)." in exploratory
    assert "TP53" not in made.intro  # without an adjusted p nothing is significant
    made = chapter(context(survival_summary=summary(), cox=frame[frame["marker"].isin(["KRAS", "TP53"])]))
    assert "None of 2 tested terms has an adjusted p below 0.05 without a warning." in made.intro
    assert "Related" not in made.intro
    assert "exploratory, to be seen again" in made.intro


@pytest.mark.parametrize("bad", [NASTY, '</script><script>alert("x")</script>', '" onmouseover="alert(1)', "a & b < c"])
def test_every_word_of_the_tables_is_text(context, bad):
    """All text columns at once, also those of the first paragraph and of the table of sources."""
    tables = {"survival_summary": summary(), "cox": cox(), "logrank": logrank(), "survival_groups": groups()}
    kept = {"status", "scanned", "model", "evidence", "kind"}
    for name, frame in tables.items():
        texts = [column for column in frame if {type(value) for value in frame[column].dropna()} == {str}]
        words = [column for column in texts if column not in kept]
        tables[name] = frame.assign(**dict.fromkeys(words, bad))
    made = chapter(context(("kaplan_meier",), **tables))
    text = text_of(made) + "".join(section.reading for section in made.sections)
    assert bad not in text
    assert html.escape(bad, quote=True) in made.intro
    for section in made.sections:
        if section.id.removeprefix("sc_survival_") not in ("ratios", "curves"):
            assert html.escape(bad, quote=True) in section.before, section.id


def test_nothing_related_is_said_plainly(context):
    made = chapter(
        context(survival_summary=summary(), cox=cox(padj=0.3), logrank=logrank(False), survival_groups=groups().iloc[:0])
    )
    assert "None of 3 tested terms has an adjusted p below 0.05." in made.intro
    assert "sc_survival_scan" not in {section.id for section in made.sections}
    assert "no split was asked for" in text_of(made)
    assert "No picture" in text_of(made)


def test_untestable_cohort_gives_its_reason(context):
    made = chapter(context(survival_summary=summary(n_events=0), cox=cox().iloc[1:2]))
    assert "0 events" in made.intro
    assert "No marker could be tested: gene_absent" in made.intro
    assert len(made.sections) == 6


def test_no_tables(context):
    made = chapter(context())
    assert [section.id for section in made.sections] == ["sc_survival_cohorts"]
    assert NASTY not in text_of(made)
    assert "0 events &lt;img" in text_of(made)


def test_sets_that_could_not_be_scored_are_counted_not_listed(context):
    frame = cox()
    frame.loc[frame["marker"] == "late", ["marker", "kind", "status"]] = ["M7", "module", keys.NOT_ESTIMABLE]
    tables = {"survival_summary": summary(), "cox": frame, "logrank": logrank(False)}
    sections = {section.id: section for section in chapter(context(survival_groups=groups().iloc[:0], **tables)).sections}
    text = sections["sc_survival_cox"].before
    assert "M7" not in text and "Not shown: 1 gene set or module" in text
    assert "MUC3A" in text  # a gene that was asked for by name stays, with its reason
