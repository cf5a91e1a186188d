"""Words and tables of the report: expectations are written by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from scresist import io, keys, report, status
from scresist.report import Col


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), ("", "–"), (0, "0"), (4812, "4,812"), (0.13333, "0.133"), (1.2e-5, "1.2e-05"), ("x", "–")],
)
def test_number_never_turns_a_gap_into_zero(value, text):
    assert report.number(value) == text


def test_listing_and_count():
    assert report.listing(["A"]) == "A" and report.listing(["A", "B", "C"]) == "A, B and C"
    assert report.listing(list("ABCDEFGH"), 3) == "A, B, C and 5 more"
    assert report.count(1, "sample") == "1 sample" and report.count(1234, "sample") == "1,234 samples"
    assert report.percent(1, 0) == "–" and report.percent(1, 8, 1) == "12.5 %"


def test_tables_escape_what_comes_from_outside():
    frame = pd.DataFrame({"a": ["<script>alert(1)</script>"], "b": ['" onmouseover="x']})
    html = report.table(frame, [Col("a", "<i>"), Col("b", "b")], "x<y.tsv", 50)
    assert "<script>" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert '" onmouseover' not in html and "<i>" not in html and "x&lt;y.tsv" in html


def test_missing_value_is_a_dash_with_its_status():
    frame = pd.DataFrame({"value": ["", "0"], "status": [keys.NOT_ESTIMABLE, "ok"]})
    html = report.table(frame, [Col("value", "value", "num")], "t.tsv", 50)
    assert f'title="not_estimable: {status.SENTENCES[keys.NOT_ESTIMABLE]}">–</td>' in html
    assert html.count(">0</td>") == 1


def test_long_tables_are_cut_and_name_the_file():
    html = report.table(pd.DataFrame({"a": range(60)}), [Col("a", "a", "int")], "02_cohort/markers.tsv", 50)
    assert html.count("<tr>") == 51 and "The first 50 of 60 rows" in html and "<code>02_cohort/markers.tsv</code>" in html


def test_every_status_word_has_a_level_and_a_cell():
    for word in status.WORDS:
        assert report.level(word) in report.LEVELS
        assert word in report.cell(word, Col("status", "status", "status"))
    levels = {word: report.level(word) for word in status.WORDS}
    assert levels["ok"] == "ok" and levels["warning"] == "warning" and levels["failed_no_cells"] == "failed"
    assert levels["skipped_no_input"] == "skipped" and levels["no_replicates"] == "limited" and report.level("") == "missing"


def rows(*triples: tuple[str, str, str]) -> pd.DataFrame:
    made = [status.StatusRow(step, "cohort" if unit == "cohort" else "sample", unit, word, "why") for step, unit, word in triples]
    return status.table(made).astype(object)


def test_worst_sample_comes_first():
    table = rows(
        ("load_sample", "A", "ok"),
        ("flag_cells", "B", "warning"),
        ("load_sample", "C", "failed_no_cells"),
        ("load_sample", "D", "skipped_too_few_cells"),
        ("flag_cells", "D", "skipped_too_few_cells"),
        ("load_sample", "E", "skipped_too_few_cells"),
        ("flag_cells", "E", "ok"),
    )
    assert report.worst_first(table, list("ABCDE")) == ["C", "D", "E", "B", "A"]
    assert report.worst_first(table, ["A", "X"]) == ["X", "A"]  # no status at all is worse than done


def test_remarks_join_samples_with_the_same_story():
    table = report.remarks(
        rows(("flag_cells", "A", "warning"), ("flag_cells", "B", "warning"), ("load_sample", "C", "failed_no_cells"))
    )
    assert table["units"].tolist() == ["C", "A and B"]


# --- sentences ---------------------------------------------------------------------------------------------------------


def cells(**columns) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "sample": ["S1"] * 4 + ["S2"] * 4 + ["S3"],
            "patient": ["P1"] * 4 + ["P2"] * 4 + ["P3"],
            "phase": ["PRE"] * 4 + ["POST"] * 4 + ["RES"],
            "kept": [True] * 4 + [True, True, True, False, False],
            "drop_reason": [""] * 7 + ["doublet", "sample_skipped"],
            "main_type": ["B", "B", "B", "NK", "B", "NK", "unresolved", None, None],
        }
    )
    return frame.assign(**columns)


DESIGN = pd.DataFrame({"sample": ["S1", "S2", "S3"], "patient": ["P1", "P2", "P3"], "phase": ["PRE", "POST", "RES"]})


def test_key_sentences_count_by_hand():
    lines = report.key_sentences(report.facts(DESIGN, cells()))
    assert lines == [
        "3 samples of 3 patients; 2 usable (not usable: S3); 7 of 9 cells kept (78 %).",
        "1 cell removed as doublets (11.1 % of all cells).",
        "2 cell types named; 14.3 % of the kept cells stay unresolved.",
    ]


def test_patients_weigh_the_same():
    """P1 has 100 cells, all B; P2 has 2, half B: the mean over patients is 75 %, not 99 %."""
    long = pd.DataFrame({"sample": ["a", "b"], "patient": ["P1", "P2"], "phase": "PRE", "main_type": "B", "n_cells": [100, 1]})
    other = long.assign(main_type="NK", n_cells=[0, 1])
    pooled = report.patient_shares(pd.concat([long, other]))
    assert pooled.loc[pooled["main_type"] == "B", "share"].mean() == 0.75


@pytest.mark.parametrize(
    ("a", "b", "word"), [(3, 4, "replicated"), (2, 9, "limited"), (1, 9, "single_patient"), (0, 2, "single_patient")]
)
def test_evidence_by_patients_a_side(a, b, word):
    assert report.evidence(a, b) == word


def test_caveats_name_aliased_factors_and_contrasts_without_test(tmp_path):
    io.write_tsv(pd.DataFrame({"factor": ["batch"], "phase_factor": ["phase"], "aliased": [True]}), tmp_path / "confounding.tsv")
    io.write_tsv(pd.DataFrame({"contrast": ["RES_vs_PRE"], "status": ["no_replicates"]}), tmp_path / "contrasts.tsv")
    notes = report.caveats(rows(("load_sample", "S1", "failed_no_cells")), report.Tables(tmp_path), report.facts(DESIGN, cells()))
    text = "\n".join(notes)
    assert "batch and phase cannot be told apart" in text and "No test is possible for RES_vs_PRE" in text
    assert "S3: no cell in the cohort" in text and "14.3 % of the cells have no agreed type" in text
    assert "S1, read matrix: No cell is left" in text and notes[-1].startswith("Cells are not replicates")


# --- methods and versions ----------------------------------------------------------------------------------------------

ENTRIES = [
    {
        "step": "flag_cells",
        "unit": "A",
        "scresist": "1",
        "python": "3",
        "packages": {"numpy": "2"},
        "parameters": {"min_genes": 200},
        "seed": 1,
    },
    {
        "step": "flag_cells",
        "unit": "B",
        "scresist": "1",
        "python": "3",
        "packages": {"numpy": "2"},
        "parameters": {"min_genes": 500},
        "seed": 1,
    },
    {
        "step": "merge_cohort",
        "unit": "cohort",
        "scresist": "1",
        "python": "3",
        "packages": {"numpy": "3"},
        "parameters": {},
        "seed": 1,
    },
]


def test_options_that_differ_between_samples_are_said_to_vary():
    assert report.gather_parameters(ENTRIES)["flag_cells"]["min_genes"] == "varied: 200 (1), 500 (1)"
    assert report.gather_parameters(ENTRIES)["flag_cells"]["seed"] == "1"


def test_mixed_versions_show():
    table = report.software(ENTRIES)
    numpy = table[table["software"] == "numpy"]
    assert numpy["version"].tolist() == ["2", "3"] and numpy["steps"].tolist() == ["flag_cells", "merge_cohort"]


def test_methods_fill_what_was_recorded_and_say_what_was_not():
    texts = {
        "intro": "Made with {scresist}.",
        "steps": {
            "flag_cells": {"title": "Cells", "text": "min {min_genes}, mad {mad_k}, numpy {version.numpy}.", "cite": ["b"]},
            "cluster_cohort": {"title": "Never run", "text": "-", "cite": ["a"]},
        },
    }
    citations = pd.DataFrame({"key": ["a", "b"], "reference": ["Ref A.", "Ref B."], "doi": ["1/a", "1/b"]})
    files = pd.DataFrame({"file": ["m.tsv"], "what": ["markers"], "sha256": ["ab"]})
    text = report.methods_text(texts, citations, ENTRIES, files, "T")
    assert "**Cells.** min varied: 200 (1), 500 (1), mad (not recorded), numpy 2. [1]" in text
    assert "1. Ref B. doi:1/b" in text and "Ref A" not in text and "Never run" not in text and "| m.tsv | markers | ab |" in text
    assert "<strong>Cells.</strong>" in report.methods_html(text) and "<td>m.tsv</td>" in report.methods_html(text)
    assert "<b>" not in report.methods_html(text.replace("T", "<b>"))


# --- promise against delivery -------------------------------------------------------------------------------------------


def delivered(tmp_path) -> tuple[report.Tables, pd.DataFrame, pd.DataFrame]:
    design = pd.DataFrame({"sample": ["S1"], "patient": ["P1"], "phase": ["PRE"]})
    for names in report.COHORT_TABLES.values():
        for name in names:
            if name != "recovery":
                io.write_tsv(design, tmp_path / f"{name}.tsv")
    for names in report.SAMPLE_TABLES.values():
        for name in names:
            io.write_tsv(
                pd.DataFrame({"sample": ["S1"], "n_in": [4], "n_out": [4], "status": ["ok"]}), tmp_path / f"S1.{name}.tsv"
            )
    triples = [(step, "S1", "ok") for step in report.SAMPLE_STEPS] + [(step, "cohort", "ok") for step in report.COHORT_STEPS]
    return report.Tables(tmp_path), rows(*triples), cells().iloc[:4]


def test_complete_delivery_passes(tmp_path):
    report.check_delivery(*delivered(tmp_path))


def test_missing_status_row_is_named(tmp_path):
    tables, table, frame = delivered(tmp_path)
    odd = table[~((table["step"] == "detect_doublets") | (table["step"] == "merge_cohort"))]
    with pytest.raises(io.InputError) as caught:
        report.check_delivery(tables, odd, frame)
    assert "detect_doublets of S1: no status row" in str(caught.value) and "merge_cohort of cohort: no status row" in str(
        caught.value
    )


def test_missing_table_is_named_unless_the_step_says_why(tmp_path):
    tables, table, frame = delivered(tmp_path)
    del tables.files["clusters.tsv"], tables.files["S1.doublets.tsv"]
    with pytest.raises(io.InputError, match=r"cluster_cohort of cohort: says ok, but clusters.tsv is missing"):
        report.check_delivery(tables, table, frame)
    told = table.assign(
        status=[
            "skipped_too_few_cells" if step in ("cluster_cohort", "detect_doublets") else word
            for step, word in zip(table["step"], table["status"], strict=True)
        ]
    )
    report.check_delivery(tables, told, frame)


def test_numbers_that_contradict_are_named(tmp_path):
    tables, table, frame = delivered(tmp_path)
    with pytest.raises(io.InputError, match=r"S1: filter.tsv says 4 cells in, cells.parquet holds 3"):
        report.check_delivery(tables, table, frame.iloc[:3])
    with pytest.raises(io.InputError, match=r"S1: filter.tsv says 4 cells out, cells.parquet marks 3 as kept"):
        report.check_delivery(tables, table, frame.assign(kept=[True, True, True, False]))
    with pytest.raises(io.InputError, match=r"holds cells of S2, which is not in samples\.tsv"):
        report.check_delivery(tables, table, pd.concat([frame, cells().iloc[4:5]]))


def annotated_rows() -> pd.DataFrame:
    """A run that began with an annotated object: no row of the samples, none of the steps up to the cell types."""
    steps = ["load_annotated", *(step for step in report.COHORT_STEPS if step not in report.REPLACED_STEPS)]
    return rows(*((step, "cohort", "ok") for step in steps))


def test_a_run_that_began_with_an_annotated_object_owes_no_step_of_the_samples(tmp_path):
    tables, table, frame = delivered(tmp_path)
    assert not report.began_annotated(table)
    assert report.began_annotated(annotated_rows())
    for name in [name for name in tables.files if name.startswith("S1.")] + ["merge.tsv", "clusters.tsv", "annotation.tsv"]:
        del tables.files[name]
    report.check_delivery(tables, annotated_rows(), frame.drop(columns="drop_reason"))
    with pytest.raises(io.InputError, match="load_sample of S1: no status row"):
        report.check_delivery(tables, table[table["step"] != "load_sample"], frame)


def test_a_run_that_began_with_an_annotated_object_owes_the_rest(tmp_path):
    tables, _, frame = delivered(tmp_path)
    del tables.files["types.tsv"]
    table = annotated_rows()
    with pytest.raises(io.InputError) as caught:
        report.check_delivery(tables, table[table["step"] != "assemble_cohort"], frame)
    assert "load_annotated of cohort: says ok, but types.tsv is missing" in str(caught.value)
    assert "assemble_cohort of cohort: no status row" in str(caught.value)


def test_status_matrix_shows_no_missing_step_of_a_run_that_had_none():
    html = report.status_matrix(annotated_rows(), DESIGN, {"S1": 4}, 50)
    assert "no status" not in html
    assert "<th>S1</th>" in html and "read matrix" not in html
    assert "no status row" in report.status_matrix(rows(("load_sample", "S1", "ok")), DESIGN, {}, 50)


def test_unknown_status_word_is_refused(tmp_path):
    path = tmp_path / "x.status.tsv"
    io.write_tsv(rows(("merge_cohort", "cohort", "ok")).assign(status="fine"), path)
    with pytest.raises(io.InputError, match="unknown status fine"):
        report.read_status([path])
    io.write_tsv(pd.DataFrame({"step": ["a"]}), path)
    with pytest.raises(io.InputError, match="columns unit_type, unit"):
        report.read_status([path])


def test_matrix_of_patients_shows_results_of_their_own():
    made = [
        status.StatusRow("infer_cnv", "patient", "P10", "ok"),
        status.StatusRow("call_malignant", "patient", "P10", "ok"),
        status.StatusRow("infer_cnv", "patient", "P2", "ok"),
        status.StatusRow("call_malignant", "patient", "P2", keys.CNV_QUIET, "no <b>arm</b> shifted"),
    ]
    html = report.unit_matrix(status.table(made).astype(object), "patient", 50)
    assert html.index(">P2<") < html.index(">P10<")
    assert "cnv quiet" in html and "no &lt;b&gt;arm&lt;/b&gt; shifted" in html
    assert report.unit_matrix(status.table(made).astype(object), "contrast", 50) == ""


def test_a_patient_without_a_row_is_a_broken_promise():
    word = {("infer_cnv", "P1"): "ok", ("call_malignant", "P1"): "ok"}
    assert report.has_tumour_stage(pd.DataFrame({"step": ["infer_cnv"]}))
    assert not report.has_tumour_stage(pd.DataFrame({"step": ["merge_cohort"]}))

    class Contrasts:
        def get(self, name):
            return pd.DataFrame({"contrast": ["A_vs_B"]})

    problems = report._tumour_problems(Contrasts(), pd.DataFrame({"patient": ["P1"]}), word)
    assert "trace_clones of P1: no status row" in problems and "test_expression of A_vs_B: no status row" in problems
    assert "infer_cnv of P1: no status row" not in problems


def test_the_microenvironment_owes_rows_of_samples_patients_and_cohort(tmp_path):
    assert report.has_microenvironment_stage(pd.DataFrame({"step": ["test_composition"]}))
    assert not report.has_microenvironment_stage(pd.DataFrame({"step": ["infer_cnv"]}))
    design = pd.DataFrame({"sample": ["S1", "S10", "S2"], "patient": ["P1", "P1", "P2"]})
    word = {("score_communication", "S1"): "ok", ("map_fates", "P2"): "ok", ("test_composition", "cohort"): "ok"}
    tables = report.Tables(tmp_path)
    problems = report._microenvironment_problems(tables, design, word, tumour=True)
    assert problems == [
        "score_communication of S2: no status row", "score_communication of S10: no status row", "map_fates of P1: no status row",
        "score_tcells of cohort: no status row", "compare_communication of cohort: no status row",
        *(f"test_composition of cohort: says ok, but {name}.tsv is missing" for name in report.COHORT_TABLES["test_composition"]),
    ]  # fmt: skip
    # fates follow tumour cells: without the tumour stage nobody owes them
    assert not any("map_fates" in line for line in report._microenvironment_problems(tables, design, word, tumour=False))
