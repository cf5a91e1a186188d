"""COMPARE_STAINING through its command line: planted fields, units of tests, statuses, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scresist import io, keys, simulation_evidence_wet, staining
from scresist.simulation import DEMO_DESIGN

TABLES = ("staining_values.tsv", "staining_tests.tsv", "staining_concordance.tsv")
PHASES = pd.DataFrame(
    {
        "phase": ["PRE", "RES", "POST", "PRE-R"], "name": ["a", "b", "c", "d"], "order": [1, 2, 3, 4],
        "time": [0.0, 1.0, 2.0, np.nan], "colour": ["#0072B2", "#009E73", "#D55E00", "#CC79A7"],
        "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED, keys.ROLE_PRIMARY],
    }
)  # fmt: skip


@pytest.fixture
def inputs(tmp_path):
    """Phases, samples and transcripts of the demo design."""
    io.write_tsv(PHASES, tmp_path / "phases.tsv")
    samples = DEMO_DESIGN[["sample", "patient", "phase"]]
    io.write_tsv(samples, tmp_path / "samples.tsv")
    rna = pd.DataFrame(
        [(p, g, "tumour", "mean", "POST_vs_PRE", "patient", e, "rank_sum_exact", "replicated")
         for p, g, e in (("adc", "ERBB2", -1.0), ("adc", "CST3", 0.9), ("adc", "MKI67", 0.1))],
        columns=["panel", "gene", "cell_type", "measure", "contrast", "unit", "effect", "test", "evidence"],
    )  # fmt: skip
    io.write_tsv(rna, tmp_path / "panel_tests.tsv")
    return samples


@pytest.fixture
def within(tmp_path, script_main):
    """The step on a table of fields, with the phases and samples of `inputs`."""
    main = script_main("compare_staining")

    def call(fields, *options):
        if fields is not None:
            fields.to_csv(tmp_path / "fields.csv", index=False)
        tables = ["--tables", *(["fields.csv"] if fields is not None else [])]
        return main(*tables, "--phases", "phases.tsv", "--samples", "samples.tsv", *options)

    return call


def rng_of(seed):
    return lambda *unit: np.random.default_rng([seed, *("/".join(unit)).encode()])


def read(folder, name):
    text = ("marker", "gene", "patient", "sample", "phase", "contrast", "unit", "test", "status", "reason", "agree", "sentence")
    return io.read_tsv(folder / name, dtype=dict.fromkeys(text, str))


def test_planted_fields(run_script, within, inputs, tmp_path):
    fields, _ = simulation_evidence_wet.staining(inputs, rng_of(1))
    fields.to_csv(tmp_path / "fields.csv", index=False)
    options = ["--tables", "fields.csv", "--phases", "phases.tsv", "--samples", "samples.tsv", "--panel_tests", "panel_tests.tsv"]
    run_script("compare_staining", *options, cwd=tmp_path)
    tests = read(tmp_path, "staining_tests.tsv")
    assert list(tests) == list(staining.TEST_COLUMNS)
    between = tests[(tests["unit"] == "patient") & (tests["contrast"] == "POST_vs_PRE") & (tests["test"] == "rank_sum_exact")]
    effect = between.set_index("marker")["effect"]
    assert effect["HER2"] < -0.3
    assert effect["CST3"] > 0.3
    assert abs(effect["CTSB"]) < 0.15
    assert between.set_index("marker").loc["HER2", "p_value"] == pytest.approx(2 / 70)
    alone = tests[(tests["unit"] == "field") & (tests["test"] == "anova")]
    assert set(alone["patient"]) == {"P1"}  # the only one with three phases
    assert (alone["df1"] == 2).all()
    assert (alone["df2"] == 12).all()
    agree = read(tmp_path, "staining_concordance.tsv")
    agree = agree[(agree["unit"] == "patient") & (agree["contrast"] == "POST_vs_PRE")].set_index("marker")["agree"]
    assert (agree["HER2"], agree["CST3"]) == ("yes", "yes")
    values = read(tmp_path, "staining_values.tsv")
    assert list(values) == list(staining.VALUE_COLUMNS)
    assert len(values) == 4 * len(inputs)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"{m}.staining.png" for m in ("CST3", "CTSB", "HER2", "Ki67")]
    row = read(tmp_path, "compare_staining.cohort.status.tsv").iloc[0]
    assert (row["status"], row["n_patients"]) == (keys.OK, 9)
    assert "also tested over fields of P1 alone (exploratory)" in row["reason"]
    first = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix in (".tsv", ".png")}
    assert within(fields.sample(frac=1, random_state=0), "--panel_tests", "panel_tests.tsv") == 0
    for name, content in first.items():
        assert (tmp_path / name).read_bytes() == content, name


def test_one_patient(within, inputs, tmp_path):
    fields, _ = simulation_evidence_wet.staining(inputs[inputs["patient"] == "P1"], rng_of(1))
    assert within(fields) == 0
    row = read(tmp_path, "compare_staining.cohort.status.tsv").iloc[0]
    assert row["status"] == keys.WARNING
    assert "fields of one patient carry the tests" in row["reason"]
    assert within(fields, "--staining_unit", "patient") == 0
    row = read(tmp_path, "compare_staining.cohort.status.tsv").iloc[0]
    assert row["status"] == keys.NO_REPLICATES
    assert read(tmp_path, "staining_tests.tsv")["p_value"].isna().all()


def test_one_phase_and_no_table(within, inputs, tmp_path):
    fields, _ = simulation_evidence_wet.staining(inputs[inputs["sample"] == "PRE-1"], rng_of(1))
    assert within(fields) == 0
    row = read(tmp_path, "compare_staining.cohort.status.tsv").iloc[0]
    assert row["status"] == keys.NOT_ESTIMABLE
    assert row["reason"] == "1 patient in 1 phase: no test"
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert within(None) == 0
    row = read(tmp_path, "compare_staining.cohort.status.tsv").iloc[0]
    assert (row["status"], row["reason"]) == (keys.SKIPPED_NO_INPUT, "no staining table was given")
    for name in TABLES:
        assert len((tmp_path / name).read_text().splitlines()) == 1
    assert not list(tmp_path.glob("*.png"))


def test_refusals(run_script, within, inputs, tmp_path):
    text = "patient,sample,phase,field,marker,value\nP1,PRE-1,PSOT,1,M,x\n"
    (tmp_path / "fields.csv").write_text(text)
    (tmp_path / "none.csv").write_text("patient,sample,phase,field,marker,value\n")
    options = ["--phases", "phases.tsv", "--samples", "samples.tsv"]
    done = run_script("compare_staining", "--tables", "fields.csv", "none.csv", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "fields.csv, row 2, column value: 'x'; expected a number" in done.stderr
    assert "Write POST" in done.stderr
    assert "none.csv, row 1, table: no row below the header" in done.stderr
    wrong = pd.DataFrame({"patient": ["P9"], "sample": ["PRE-1"], "phase": ["PRE"], "marker": ["M"], "value": [1]})
    with pytest.raises(io.InputError, match="expected P1, as in the samplesheet"):
        within(wrong)
    (tmp_path / "fields.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(io.InputError, match=r"fields\.csv: cannot be read as UTF-8 text"):
        within(None, "--tables", "fields.csv")
