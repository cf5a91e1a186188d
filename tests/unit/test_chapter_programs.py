"""The chapter of programs: a normal run, empty tables, hostile names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import io, keys, report
from scresist.chapter_programs import programs
from scresist.layout import Box, Context, Heat, Line
from scresist.status import COLUMNS

SECTIONS = ["traits", "scores", "groups", "hubs", "tree", "power", "preservation"]
SKIPPED = (
    "find_programs",
    "cohort",
    "cohort",
    "skipped_too_few_cells",
    "3 metacells; 30 metacells needed",
    60,
    1,
    1,
    "Not done.",
)


def write(folder, module="M1", sample="S1", gene="MKI67", p=0.01, evidence="limited"):
    """Tables of one module and the genes without."""
    rows = [
        (module, "primary_resistance", "sample", 0.83, 6, 1.2, 2, 4, 0.02, p, 2 / 15, evidence, "ok"),
        (module, "trait_dose", "sample", np.nan, 6, np.nan, 6, np.nan, np.nan, np.nan, np.nan, "replicated", "not_estimable"),
        (module, "primary_resistance", "cell_level", 0.4, 200, 0.9, 2, 4, 1e-9, 1e-8, np.nan, "cell_level", "ok"),
    ]
    names = ["module", "trait", "level", "rho", "n", "difference", "n_patients_a", "n_patients_b", "p_value", "p_adjusted",
             "p_min_attainable", "evidence", "status"]  # fmt: skip
    box = {"min": -2, "q1": -1, "median": 0, "q3": 1, "max": 2, "mean": 0.1, "sd": 1}
    tables = {
        "module_traits": pd.DataFrame(rows, columns=names),
        "module_sizes": pd.DataFrame(
            {"module": [module, "grey"], "n_genes": [60, 940], "variance_explained": [0.5, np.nan],
             "between_samples": [0.2, np.nan], "mean_kme": [0.7, np.nan], "hub_genes": [f"{gene},TOP2A", ""]}
        ),
        "module_samples": pd.DataFrame([{"sample": sample, "module": module, "n_cells": 120, **box}]),
        "module_groups": pd.DataFrame(
            {"group_type": ["phase", "clone"], "group": ["PRE", "P1.C1"], "module": module, "mean": 0.0,
             "mean_expression": [0.1, 0.3]}
        ),
        "soft_threshold": pd.DataFrame({"power": [1, 2], "signed_r2": [-0.5, 0.93], "mean_k": [90, 12], "chosen": [False, True]}),
        "preservation": pd.DataFrame(
            {"module": [module], "phase": ["PRE"], "n_cells": [120], "mean_correlation": [0.1], "background_correlation": [0.01],
             "kme_rank_correlation": [0.8], "status": ["ok"]}
        ),
    }  # fmt: skip
    for name, table in tables.items():
        io.write_tsv(table, folder / f"{name}.tsv")
    (folder / "modules.dendrogram.png").write_bytes(b"a picture")


def context(folder, rows=(), sample="S1") -> Context:
    status = pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)
    design = pd.DataFrame({"sample": [sample], "patient": ["P1"], "phase": ["PRE"]})
    cells = pd.DataFrame({keys.SAMPLE: [], keys.KEPT: []})
    return Context(report.Tables(folder), status, cells, design, None, pd.DataFrame(), "", pd.DataFrame(), [])


def html_of(chapter) -> str:
    return chapter.intro + "".join(section.reading + section.before + section.after for section in chapter.sections)


def plots(chapter):
    return {section.id.removeprefix("sc_programs_"): section.plot for section in chapter.sections}


def test_a_normal_run(tmp_path):
    write(tmp_path)
    chapter = programs(context(tmp_path))
    assert [section.id for section in chapter.sections] == [f"sc_programs_{name}" for name in SECTIONS]
    assert "1 module with 60 genes together" in chapter.intro
    assert "M1 goes up with primary resistance: rho 0.83, adjusted p 0.01 (limited)." in chapter.intro
    assert "primary resistance: with so few patients no test can give p below 0.05" in chapter.intro
    drawn = plots(chapter)
    assert isinstance(drawn["traits"], Heat) and drawn["traits"].values == [[0.83, None]]
    assert drawn["traits"].columns == ["primary resistance", "dose"] and drawn["traits"].rows == ["M1"]
    assert isinstance(drawn["scores"], Box) and list(drawn["scores"].data["M1"]) == ["PRE: S1 (n=120)"]
    assert drawn["groups"].rows == ["phase PRE", "clone P1.C1"] and drawn["groups"].values == [[0.1], [0.3]]
    assert isinstance(drawn["power"], Line) and drawn["power"].data["Scale-free fit"]["signed R2"] == {1.0: -0.5, 2.0: 0.93}
    html = html_of(chapter)
    assert "Power used here: 2." in html and "MKI67, TOP2A" in html and "940 genes of the network belong to no module" in html
    assert "data:image/png;base64," in html
    assert ">*<" in html and "0.40" in html  # the star of the table; rho over metacells beside it


@pytest.mark.parametrize(("p", "evidence"), [(0.2, "limited"), (0.01, "single_patient"), (0.01, "cell_level")])
def test_nothing_is_claimed_without_a_test_between_patients(tmp_path, p, evidence):
    write(tmp_path, p=p, evidence=evidence)
    chapter = programs(context(tmp_path))
    assert "goes up" not in chapter.intro and ">*<" not in html_of(chapter)
    assert f"exploratory: the strongest relation with primary resistance is that of M1 (rho 0.83, {evidence})." in chapter.intro


@pytest.mark.parametrize("with_headers", [False, True])
def test_nothing_found_says_why(tmp_path, with_headers):
    if with_headers:
        write(tmp_path)
        for path in tmp_path.glob("*.tsv"):
            path.write_text(path.read_text().splitlines()[0] + "\n")
        (tmp_path / "modules.dendrogram.png").unlink()
    chapter = programs(context(tmp_path, [SKIPPED]))
    assert "3 metacells; 30 metacells needed" in chapter.intro
    assert [section.id for section in chapter.sections] == [f"sc_programs_{name}" for name in SECTIONS]
    assert not any(plots(chapter).values())
    for section in chapter.sections:
        assert "3 metacells; 30 metacells needed" in section.before + section.after, section.id


def test_no_module_is_said(tmp_path):
    write(tmp_path)
    io.write_tsv(pd.DataFrame({"module": ["grey"], "n_genes": [1000]}), tmp_path / "module_sizes.tsv")
    for name in ("module_traits", "module_samples", "module_groups", "preservation"):
        path = tmp_path / f"{name}.tsv"
        path.write_text(path.read_text().splitlines()[0] + "\n")
    chapter = programs(context(tmp_path, [(*SKIPPED[:3], "ok", "", 900, 9, 9, "No group of genes was found.")]))
    assert "No programs: No group of genes was found." in chapter.intro
    assert plots(chapter)["power"] is not None and plots(chapter)["traits"] is None


def test_hostile_names_are_escaped(tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    write(tmp_path, module="M1", sample=bad, gene=bad)
    table = io.read_tsv(tmp_path / "module_traits.tsv", dtype=str)
    table["trait"] = table["trait"].replace("trait_dose", f"trait_{bad}")
    io.write_tsv(table, tmp_path / "module_traits.tsv")
    assert "<img src=x" not in html_of(programs(context(tmp_path, sample=bad)))
