"""Kernels of the design: expectations worked by hand or from scipy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import design, keys

# methods.md, The study in figures: 11 biopsies of 9 patients, one of them with PRE, RES and POST
STUDY = [
    ("PRE-1", "P1", "PRE"),
    ("RES-1", "P1", "RES"),
    ("POST-1", "P1", "POST"),
    ("PRE-2", "P2", "PRE"),
    ("PRE-3", "P3", "PRE"),
    ("PRE-4", "P4", "PRE"),
    ("PRE-R-1", "P5", "PRE-R"),
    ("PRE-R-2", "P6", "PRE-R"),
    ("POST-2", "P7", "POST"),
    ("POST-3", "P8", "POST"),
    ("POST-4", "P9", "POST"),
]


def study_phases() -> pd.DataFrame:
    rows = [
        {"phase": "PRE", "role": "baseline", "order": "1", "time": "0"},
        {"phase": "RES", "role": "response", "order": "2", "time": "1"},
        {"phase": "POST", "role": "acquired_resistance", "order": "3", "time": "2"},
        {"phase": "PRE-R", "role": "primary_resistance", "order": "4", "time": ""},
    ]
    phases, problems = design.phase_frame(rows, list(rows[0]), "phases.tsv")
    assert problems == []
    return phases


def sheet_of(rows, **columns) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["sample", "patient", "phase"], dtype=object)
    frame["path"] = frame["sample"]
    frame["_row"] = [f"{i + 2:06d}" for i in range(len(frame))]
    for name, values in columns.items():
        frame[name] = values
    return frame


def contrasts_of(rows, phases=None, pairing="auto", min_replicates=2, **columns) -> pd.DataFrame:
    samples = design.sample_table(sheet_of(rows, **columns), {})
    found = design.default_contrasts(samples, study_phases() if phases is None else phases)
    return design.contrast_table(found, samples, pairing, min_replicates).set_index("contrast", drop=False)


def problems_of(sheet: pd.DataFrame, phases=("PRE", "RES", "POST", "PRE-R")) -> list[str]:
    return [p.line() for p in design.check_sheet(sheet, [c for c in sheet.columns if c != "_row"], phases)]


# --- phases


def test_primary_resistance_stays_beside_the_time_axis_without_a_time_column():
    rows = [{"phase": p, "role": r} for p, r in (("A", "baseline"), ("B", "primary_resistance"), ("C", "acquired_resistance"))]
    phases, problems = design.phase_frame(rows, ["phase", "role"], "t.tsv")
    assert problems == []
    assert phases["time"].tolist()[0::2] == [0, 1]
    assert math.isnan(phases["time"][1])


def test_list_takes_the_first_as_baseline_and_numbers_time():
    phases, problems = design.phases_from_list("healthy, tumour", study_phases())
    assert problems == []
    assert phases[["phase", "role", "time"]].values.tolist() == [["healthy", "baseline", 0.0], ["tumour", "other", 1.0]]
    assert phases["colour"].is_unique


def test_list_keeps_what_the_table_knows():
    phases, _ = design.phases_from_list("PRE,PRE-R,POST", study_phases())
    assert phases["role"].tolist() == ["baseline", "primary_resistance", "acquired_resistance"]
    np.testing.assert_array_equal(phases["time"], [0, np.nan, 1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("phasse.tsv", "no such file"),
        ("a,A", "'A' is named twice"),
        ("a,,b", "'' is not a name"),
        ("a b,c", "'a b' is not a name"),
    ],
)
def test_list_faults(text, words):
    assert any(words in p.line() for p in design.phases_from_list(text, study_phases())[1])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"phase": "P RE"}, "'P RE'"),
        ({"phase": "x", "role": "basline"}, "Write baseline"),
        ({"phase": "x", "order": "first"}, "column order"),
        ({"phase": "x", "time": "0,5"}, "column time"),
        ({"phase": "x", "colour": "red"}, "#0072B2"),
        ({"phase": "pre"}, "stands in row 2 too"),
        ({"phase": "x", "role": "baseline"}, "one baseline"),
        ({"phase": "x", "colr": "1"}, "Rename it to colour"),
    ],
)
def test_phase_table_faults(row, words):
    first = {"phase": "PRE", "role": "baseline"}
    header = list(dict.fromkeys([*first, *row]))
    problems = design.phase_frame([first, row], header, "t.tsv")[1]
    assert any(words in p.line() for p in problems), problems


def test_phase_table_without_phase_or_rows():
    assert "a column phase" in design.phase_frame([], ["name"], "t.tsv")[1][0].line()
    assert "no row" in design.phase_frame([], ["phase"], "t.tsv")[1][0].line()


def test_phase_table_with_a_column_twice():
    assert "named 2 times" in design.phase_frame([{"phase": "a"}], ["phase", "phase"], "t.tsv")[1][0].line()


# --- contrasts


def test_the_studys_sheet():
    found = contrasts_of(STUDY)
    assert list(found.index) == ["PRE-R_vs_PRE", "POST_vs_PRE", "RES_vs_PRE", "POST_vs_RES"]
    primary, acquired, response = (found.loc[name] for name in ("PRE-R_vs_PRE", "POST_vs_PRE", "RES_vs_PRE"))
    # methods.md, CHECK_DESIGN, Check
    assert (primary["n_patients_a"], primary["n_patients_b"]) == (2, 4)
    assert primary["p_min_attainable"] == pytest.approx(0.133, abs=5e-4)
    assert (acquired["n_patients_a"], acquired["n_patients_b"], acquired["n_pairs"]) == (4, 4, 1)
    assert acquired["p_min_attainable"] == pytest.approx(0.029, abs=5e-4)
    assert acquired["status"] == "warning" and "partially_paired: P1" in acquired["reason"] and not acquired["paired"]
    assert response["status"] == "no_replicates" and math.isnan(response["p_min_attainable"])
    assert found["evidence"].tolist() == ["limited", "replicated", "single_patient", "single_patient"]


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (2, 4), (3, 3), (4, 4), (5, 7)])
def test_p_min_is_that_of_the_most_extreme_ranks(n_a, n_b):
    extreme = stats.mannwhitneyu(range(n_a), range(100, 100 + n_b), method="exact").pvalue
    assert design.p_min_attainable(n_a, n_b, False) == pytest.approx(extreme)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_p_min_of_pairs_is_that_of_one_sign(n):
    extreme = stats.wilcoxon(np.arange(1, n + 1), method="exact").pvalue
    assert design.p_min_attainable(n, n, True) == pytest.approx(extreme)


def test_p_min_of_an_empty_side_is_undefined():
    assert math.isnan(design.p_min_attainable(0, 3, False))


def paired_rows(pairs: int, only_a: int, only_b: int) -> list[tuple[str, str, str]]:
    rows = []
    for i in range(pairs + only_a + only_b):
        if i < pairs + only_a:
            rows.append((f"A{i}", f"P{i}", "POST"))
        if i < pairs or i >= pairs + only_a:
            rows.append((f"B{i}", f"P{i}", "PRE"))
    return rows


@pytest.mark.parametrize(
    ("pairs", "only_a", "only_b", "paired", "status", "n_a", "n_b"),
    [
        (3, 0, 0, True, "ok", 3, 3),
        (2, 1, 1, True, "warning", 2, 2),  # two pairs are half of four patients
        (2, 2, 1, False, "warning", 4, 3),  # two of five are not
        (1, 1, 0, False, "no_replicates", 2, 1),
        (0, 2, 2, False, "ok", 2, 2),
    ],
)
def test_pairing_rule(pairs, only_a, only_b, paired, status, n_a, n_b):
    row = contrasts_of(paired_rows(pairs, only_a, only_b)).loc["POST_vs_PRE"]
    assert (row["paired"], row["status"], row["n_patients_a"], row["n_patients_b"]) == (paired, status, n_a, n_b)
    dropped = row["patients_dropped"].split(",") if row["patients_dropped"] else []
    assert len(dropped) == (only_a + only_b if paired else 0)
    for patient in dropped:
        assert patient in row["reason"] and f"A{patient[1:]}" not in row["samples_a"].split(",")


def test_pairing_can_be_forced_both_ways():
    rows = paired_rows(1, 3, 3)
    forced = contrasts_of(rows, pairing="paired").loc["POST_vs_PRE"]
    assert forced["paired"] and forced["status"] == "no_replicates" and forced["n_patients_a"] == 1
    free = contrasts_of(paired_rows(5, 0, 0), pairing="unpaired").loc["POST_vs_PRE"]
    assert not free["paired"] and free["p_min_attainable"] == pytest.approx(2 / 252)


def test_min_replicates_is_counted_in_patients_not_samples():
    rows = [("a1", "P1", "POST"), ("a2", "P1", "POST"), ("a3", "P1", "POST"), ("b1", "P2", "PRE"), ("b2", "P3", "PRE")]
    row = contrasts_of(rows).loc["POST_vs_PRE"]
    assert row["status"] == "no_replicates" and (row["n_samples_a"], row["n_patients_a"]) == (3, 1)
    assert contrasts_of(paired_rows(0, 2, 2), min_replicates=3).loc["POST_vs_PRE", "status"] == "no_replicates"


def test_treated_gives_a_contrast_when_both_sides_have_samples():
    treated = ["yes" if phase in ("RES", "POST") else "no" for _, _, phase in STUDY]
    row = contrasts_of(STUDY, treated=treated).loc["treated_vs_untreated"]
    assert (row["n_samples_a"], row["n_samples_b"]) == (5, 6)
    assert "treated_vs_untreated" not in contrasts_of(STUDY, treated="no").index


def test_phases_without_samples_are_stepped_over():
    phases, _ = design.phases_from_list("t0,t1,t2,t3", study_phases())
    rows = [(f"s{i}", f"P{i}", t) for i, t in enumerate(["t0", "t1", "t3"])]
    assert list(contrasts_of(rows, phases).index) == ["t1_vs_t0", "t3_vs_t0", "t3_vs_t1"]


def test_no_baseline_leaves_successive_phases():
    rows = [row for row in STUDY if row[2] in ("RES", "POST", "PRE-R")]
    assert list(contrasts_of(rows).index) == ["POST_vs_RES"]


def declared(rows, **columns):
    samples = design.sample_table(sheet_of(STUDY, **columns), {})
    return design.declared_contrasts(rows, ["contrast", "side_a", "side_b"], samples, ["PRE", "RES", "POST", "PRE-R"])


def test_declared_sides_are_phases_or_values():
    response = ["R" if phase != "PRE-R" else "NR" for _, _, phase in STUDY]
    found, problems = declared(
        [
            {"contrast": "both", "side_a": "RES,POST", "side_b": "PRE, PRE-R"},
            {"contrast": "resp", "side_a": "response:R", "side_b": "response:NR"},
        ],
        response=response,
    )
    assert problems == []
    assert [(len(c.samples_a), len(c.samples_b)) for c in found] == [(5, 6), (9, 2)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("c", "PSOT", "PRE"), "Write POST"),
        (("c", "POST", "PRE,POST"), "on both sides"),
        (("c", "respons:R", "PRE"), "Write response:R"),
        (("c", "response:Q", "PRE"), "one of R"),
        (("c", "", "PRE"), "empty"),
        (("c d", "POST", "PRE"), "'c d'"),
        (("first", "POST", "PRE"), "stands in row 2 too"),
    ],
)
def test_declared_faults(row, words):
    rows = [
        {"contrast": "first", "side_a": "POST", "side_b": "PRE"},
        dict(zip(("contrast", "side_a", "side_b"), row, strict=True)),
    ]
    problems = declared(rows, response="R")[1]
    assert len(problems) == 1 and words in problems[0].line(), problems


def test_declared_table_lacks_a_column_or_names_one_twice():
    samples = design.sample_table(sheet_of(STUDY), {})
    lines = [p.line() for p in design.declared_contrasts([], ["contrast", "sidea", "side_b", "side_b"], samples, ["PRE"])[1]]
    assert any("column side_a: contrast table: missing" in line for line in lines)
    assert any("Rename it to side_a" in line for line in lines)
    assert any("side_b: contrast table: named 2 times" in line for line in lines)


# --- confounding


def test_cramers_v_agrees_with_scipy():
    rng = np.random.default_rng(1)
    for _ in range(5):
        a, b = rng.choice(list("xyz"), 40), rng.choice(list("pqrs"), 40)
        expected = stats.contingency.association(pd.crosstab(a, b).to_numpy(), method="cramer", correction=False)
        assert design.cramers_v(a, b) == pytest.approx(expected)


def test_cramers_v_limits():
    assert design.cramers_v(list("aabb"), list("xxyy")) == 1.0
    assert design.cramers_v(list("aabb"), list("xyxy")) == 0.0
    assert math.isnan(design.cramers_v(list("aaaa"), list("xyxy")))
    assert math.isnan(design.cramers_v([], []))


@pytest.mark.parametrize(
    ("factor", "phase", "aliased"),
    [
        ("aabb", "xxyy", True),  # batch is phase
        ("aabb", "xyxy", False),  # balanced
        ("aab", "xyy", False),  # connected: a links x and y
        ("aabbc", "xyxyz", True),  # z is seen in batch c only
        ("abcd", "xxyy", True),  # a batch per sample
        ("aaaa", "xxyy", False),  # one batch: nothing to confound
        ("aabb", "xxxx", False),
    ],
)
def test_aliased_is_loss_of_rank(factor, phase, aliased):
    assert design.is_aliased(list(factor), list(phase)) is aliased


def whole(rows, phases=None, **columns):
    phases = study_phases() if phases is None else phases
    samples = design.sample_table(sheet_of(rows, **columns), {})
    contrasts = design.contrast_table(design.default_contrasts(samples, phases), samples, "auto", 2)
    confounding = design.confounding_table(samples, contrasts)
    questions = design.question_table(samples, phases, contrasts, confounding, 2).set_index("question")
    return samples, phases, contrasts, confounding, questions


def test_batch_equal_to_phase_is_warned_of_and_lowers_answers():
    rows = paired_rows(0, 4, 4)
    parts = whole(rows, batch=[phase for _, _, phase in rows])
    assert parts[3]["aliased"].all()
    warnings = design.cohort_warnings(*parts[:4])
    assert any(text.startswith("aliased: batch and phase") for text in warnings)
    assert parts[4].loc["Can phase be told apart from batch?", "answer"] == "no"
    first = parts[4].iloc[0]
    assert parts[4].loc["How does POST differ from PRE?", "answer"] == "exploratory", first


def test_absent_batch_is_said_and_not_invented():
    samples, _, _, confounding, questions = whole(paired_rows(0, 4, 4))
    assert set(samples["batch"]) == {keys.NO_BATCH} and confounding.empty
    assert questions.loc["Can phase be told apart from batch?", "answer"] == "no"
    assert questions.loc["How does POST differ from PRE?", "answer"] == "yes"


def test_batch_missing_for_some_is_warned_of():
    parts = whole(paired_rows(0, 2, 2), batch=["b1", "b1", "b1", ""])
    assert any("batch is missing for B3" in text for text in design.cohort_warnings(*parts[:4]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("s", "P1", "PRE")], "one phase (PRE)"),
        ([("s", "P1", "PRE"), ("t", "P1", "POST")], "one patient (P1)"),
        ([("s", "P1", "RES"), ("t", "P2", "POST")], "no sample of the baseline PRE"),
        ([("s", "P1", "PRE"), ("t", "P2", "POST"), ("u", "P3", "POST")], "one patient in PRE"),
        ([("s", "P1", "PRE"), ("t", "P2", "POST")], "effect sizes only"),
        ([("s", "P1", "PRE")], "no contrast"),
    ],
)
def test_unusual_cohorts_are_named(rows, words):
    assert any(words in text for text in design.cohort_warnings(*whole(rows)[:4]))


def test_questions_of_the_study():
    questions = whole(STUDY)[4]["answer"]
    assert questions["How does PRE-R differ from PRE?"] == "exploratory"  # p cannot go below 0.133
    assert questions["How does POST differ from PRE?"] == "yes"
    assert questions["How does RES differ from PRE?"] == "exploratory"
    assert questions["How does a tumour change within one patient along the therapy (clones, states)?"] == "exploratory"
    assert questions["Is there a trend over the phases of the therapy?"] == "exploratory"
    absent = whole([("s", "P1", "PRE"), ("t", "P2", "PRE")])[4]
    assert absent.loc["How does POST differ from PRE?"].tolist() == ["no", "no sample of POST"]
    assert set(absent["answer"]) == {"no"}


def test_primary_and_acquired_resistance_exclude_each_other():
    rows = [("s", "P1", "PRE-R"), ("t", "P1", "POST"), ("u", "P2", "PRE-R"), ("v", "P2", "PRE")]
    samples = design.sample_table(sheet_of(rows), {})
    assert list(design.contradictory_patients(samples, study_phases())) == ["P1"]


def test_order_of_rows_changes_nothing():
    batch = [f"b{i % 3}" for i in range(len(STUDY))]
    straight = whole(STUDY, batch=batch)
    order = np.random.default_rng(2).permutation(len(STUDY))
    shuffled = whole([STUDY[i] for i in order], batch=[batch[i] for i in order])
    for one, other in zip(straight, shuffled, strict=True):
        pd.testing.assert_frame_equal(one, other)


# --- samplesheet


def test_a_sound_sheet_has_no_problem():
    sheet = sheet_of(STUDY, batch="b1", min_genes="300", mad_k="", trait_age="61.5", trait_sex="f", expected_doublet_rate="auto")
    assert problems_of(sheet) == []


@pytest.mark.parametrize("word", ["001", "NA", "1e5", "nan", "-"])
def test_ids_stay_text(word):
    rows = [(word, "001", "PRE"), ("b", "NA", "PRE")]
    found = problems_of(sheet_of(rows))
    assert bool(found) is (word == "-")
    table = design.sample_table(sheet_of(rows), {})
    assert word in table["sample"].tolist() and set(table["patient"]) == {"001", "NA"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"sample": ["S1", "S1"]}, "'S1' stands in rows 2, 3"),
        ({"sample": ["S1", "s1"]}, "differ only in upper and lower case"),
        ({"sample": ["S 1", "b"]}, "Rename it, to S_1 for example"),
        ({"sample": ["Müller", "b"]}, "letters, digits"),
        ({"sample": ["", "b"]}, "row 2, column sample: empty"),
        ({"patient": ["p1", "P1"]}, "differ only"),
        ({"phase": ["PSOT", "PRE"]}, "Write POST"),
        ({"phase": ["PRE-r", "PRE"]}, "Write PRE-R"),
        ({"path": ["x", "./x/"]}, "matrix of its own"),
        ({"path": ["x", "y"], "raw_path": ["x", ""]}, "the same as path"),
        ({"_path_found": ["missing", "file"]}, "'a' is not there"),
        ({"metrics": ["m", ""], "_metrics_found": ["missing", ""]}, "column metrics: 'm' is not there"),
        ({"min_genes": ["many", ""]}, "'many' given; expected a whole number"),
        ({"min_genes": ["200.5", ""]}, "whole number"),
        ({"min_counts": ["-1", ""]}, "0 or more"),
        ({"max_mt_pct": ["120", ""]}, "0 to 100"),
        ({"max_mt_pct": ["7,5", ""]}, "Write 7.5"),
        ({"mad_k": ["nan", ""]}, "'nan' given"),
        ({"saturation_pct": ["0.75", ""]}, "Write 75 if this is a share"),
        ({"expected_doublet_rate": ["6", ""]}, "Write 0.06 if this is a percentage"),
        ({"expected_doublet_rate": ["often", ""]}, "or auto"),
        ({"treated": ["Yes", "no"]}, "Write yes"),
        ({"response": ["R", "NR"], "patient": ["P1", "P1"]}, "patient P1 has R (row 2), NR (row 3)"),
        ({"batc": ["1", "2"]}, "Rename it to batch"),
        ({"zzz": ["1", "2"]}, "or to trait_zzz"),
        ({"trait_a b": ["1", "2"]}, "after trait_"),
        ({"trait_age": ["61", "old"]}, "numbers only, or words only"),
    ],
)
def test_each_fault_gives_one_line_that_names_it(columns, words):
    sheet = sheet_of([("a", "PA", "PRE"), ("b", "PB", "POST")])
    for name, values in columns.items():
        sheet[name] = values
    found = problems_of(sheet)
    assert len(found) == 1 and words in found[0], found


def test_missing_column_and_repeated_column_and_no_row():
    sheet = sheet_of([("a", "P", "PRE")]).rename(columns={"patient": "patiant"})
    assert any("Rename patiant to patient" in line for line in problems_of(sheet))
    header = ["sample", "patient", "phase", "path", "path"]
    assert "named 2 times" in design.check_sheet(sheet_of([("a", "P", "PRE")]), header, ["PRE"])[0].line()
    assert any("no row" in line for line in problems_of(sheet_of([])))


@pytest.mark.parametrize(
    ("path", "name"),
    [("/data/secret/run 1/", "run 1"), ("s3://bucket/key/x.h5", "x.h5"), ("C:\\data\\x.h5", "x.h5"), ("x", "x"), ("", "")],
)
def test_base_name(path, name):
    assert design.base_name(path) == name


def test_thresholds_in_force():
    sheet = sheet_of([("a", "P", "PRE"), ("b", "P", "POST")], min_genes=["300.0", ""], saturation_pct=["71.25", ""])
    table = design.sample_table(sheet, {"min_genes": "200", "max_mt_pct": "20.0"}).set_index("sample")
    assert table["min_genes"].tolist() == ["300", "200"]
    assert table["max_mt_pct"].tolist() == ["20", "20"]
    assert table["saturation_pct"].tolist() == ["71.25", ""] and table["mad_k"].tolist() == ["", ""]
