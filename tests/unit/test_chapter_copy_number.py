"""The chapter of copy number: normal tables, empty ones, hostile names."""

from __future__ import annotations

import pandas as pd

from scresist import io, keys, report
from scresist.chapter_copy_number import arm_heat, copy_number, sensitivity_heat
from scresist.layout import Context
from scresist.status import COLUMNS

SECTIONS = ["calls", "arms", "clusters", "reference", "sensitivity", "without"]
STATUS = [
    ("infer_cnv", "patient", "P1", "ok", "", 100, 2, 1, "Done."),
    ("infer_cnv", "patient", "P2", "warning", "60 reference cells, 100 wanted", 40, 1, 1, "Done."),
    ("call_malignant", "patient", "P2", "cnv_quiet", "no cluster", 40, 1, 1, "No change <b>found</b>."),
]


def write(folder, name="P1") -> None:
    """Tables of a patient with a call in two samples, and of a quiet one."""
    calls = pd.DataFrame(
        [
            (name, "S10", "POST", 60, 50, 5, 5, 6, 40, 50, "cnv", 0.2, 0.7, "ok"),
            (name, "S2", "PRE", 40, 30, 5, 5, 4, 30, 30, "cnv", 0.2, 0.7, "ok"),
        ],
        columns=[
            "patient", "sample", "phase", "n_epithelial", "n_malignant", "n_non", "n_unresolved", "n_quota", "n_refcut",
            "n_tumour", "tumour_basis", "agreement_quota", "agreement_refcut", "status",
        ],
    )  # fmt: skip
    quiet = calls.iloc[:1].assign(
        patient="P2", sample="Q", n_epithelial=40, n_malignant=0, n_non=0, n_unresolved=40, tumour_basis="epithelial",
        agreement_quota=float("nan"), status="cnv_quiet",
    )  # fmt: skip
    arms = pd.DataFrame(
        [
            (name, sample, "PRE", kind, role, arm, 50, n, 0.1, 0.1, z)
            for arm in ("10p", "2q")
            for sample, kind, role, n, z in (
                ("S2", "Epithelial", "query", 30, 2.0),
                ("S2", "Tumour", "query", 10, 6.0),
                ("S2", "T", "reference", 90, 0.0),
                ("S10", "Epithelial", "query", 60, -1.0),
            )
        ],
        columns=["patient", "sample", "phase", "main_type", "cnv_role", "arm", "n_genes", "n_cells", "mean", "sd", "mean_z"],
    )
    reference = pd.DataFrame(
        [(name, "T", "T", 90, 0, "", True), (name, "Fibroblast", "Fibroblast", 30, 3, "+1q,-5q,+8q", False)],
        columns=["patient", "group", "main_types", "n_cells", "arms_shifted", "arms", "used"],
    )
    clusters = pd.DataFrame(
        [(name, "0", 80, 2, 0.6, 3, "+1q,-5q,+8q", True, True, 78)],
        columns=[
            "patient", "cluster", "n_cells", "n_samples", "top_sample_share", "n_shifted", "arms", "judged", "tumour_like",
            "n_malignant",
        ],
    )  # fmt: skip
    moved = pd.DataFrame(
        [
            (name, 1.0, 2, 0.75, 0.95, False, 2, 90, 0.8),
            (name, 1.5, 2, 0.75, 0.95, True, 1, 80, 1.0),
            (name, 1.5, 2, 0.5, 0.95, False, 1, 80, 0.1),
            ("P2", 1.5, 2, 0.75, 0.95, True, 0, 0, None),
        ],
        columns=[
            "patient", "arm_shift", "min_shifted_arms", "third_shift", "cell_quantile", "is_default", "n_tumour_like_clusters",
            "n_malignant", "jaccard_to_default",
        ],
    )  # fmt: skip
    for kind, table in (
        ("malignant", pd.concat([calls, quiet])), ("cnv_arms", arms), ("cnv_reference", reference),
        ("malignant_clusters", clusters), ("malignant_sensitivity", moved),
    ):  # fmt: skip
        io.write_tsv(table, folder / f"P1.{kind}.tsv")


def context(folder, rows=()) -> Context:
    status = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    design = pd.DataFrame({"sample": ["S2"], "patient": ["P1"], "phase": ["PRE"]})
    cells = pd.DataFrame({keys.SAMPLE: [], keys.KEPT: []})
    return Context(report.Tables(folder), status, cells, design, None, pd.DataFrame(), "", pd.DataFrame(), [], 50)


def text(chapter) -> str:
    return chapter.intro + "".join(s.title + s.reading + s.before + s.after for s in chapter.sections)


def test_normal(tmp_path):
    write(tmp_path)
    chapter = copy_number(context(tmp_path, STATUS))
    assert [section.id for section in chapter.sections] == [f"sc_copy_number_{name}" for name in SECTIONS]
    assert "In 1 patient epithelial cells" in chapter.intro
    assert "80 of 100 epithelial cells (80 %) are called malignant" in chapter.intro
    assert "No such change was found in P2" in chapter.intro
    bars = chapter.sections[0].plot
    assert list(bars.data) == ["S2", "S10", "Q"]
    assert bars.data["S10"] == {"n_malignant": 50, "n_unresolved": 5, "n_non": 5}
    assert "60 reference cells, 100 wanted" in text(chapter)
    assert "<b>found</b>" not in text(chapter)
    assert "+1q,-5q,+8q" in chapter.sections[3].before


def test_heat_maps_by_hand(tmp_path):
    write(tmp_path)
    tables = report.Tables(tmp_path)
    heat = arm_heat(tables.of_units("cnv_arms", "patient"))
    assert heat.columns == ["2q", "10p"]
    assert heat.rows == ["S2 (n = 40)", "S10 (n = 60)"]
    assert heat.values == [[3.0, 3.0], [-1.0, -1.0]]  # (30 x 2 + 10 x 6) / 40; reference cells are not in it
    moved = sensitivity_heat(tables.of_units("malignant_sensitivity", "patient"))
    assert moved.columns == ["1 / 2", "1.5 / 2"]
    assert moved.values == [[0.8, 1.0], [None, None]]


def test_no_tables(tmp_path):
    chapter = copy_number(context(tmp_path))
    assert [section.id for section in chapter.sections] == [f"sc_copy_number_{name}" for name in SECTIONS]
    assert "No epithelial cells were found" in chapter.intro
    assert all(section.plot is None for section in chapter.sections)
    assert "sc-none" in chapter.sections[0].before


def test_empty_tables(tmp_path):
    write(tmp_path)
    for path in tmp_path.glob("*.tsv"):
        path.write_text(path.read_text().splitlines()[0] + "\n")
    chapter = copy_number(context(tmp_path))
    assert all(section.plot is None for section in chapter.sections)


def test_hostile_names(tmp_path):
    write(tmp_path, "<script>alert(1)</script>")
    rows = [("infer_cnv", "patient", "<script>x</script>", "warning", "<img src=x>", 1, 1, 1, "Done.")]
    shown = text(copy_number(context(tmp_path, rows)))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown
