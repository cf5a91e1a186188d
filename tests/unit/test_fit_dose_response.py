"""FIT_DOSE_RESPONSE through its command line: planted plates, every status, every refusal."""

from __future__ import annotations

import importlib.util
import json
import resource

import numpy as np
import pandas as pd
import pytest

from scresist import dose_response, io, keys, simulation_evidence_wet

TABLES = ("dose_fits.tsv", "dose_points.tsv", "dose_tests.tsv")


def rng_of(seed):
    return lambda *unit: np.random.default_rng([seed, *("/".join(unit)).encode()])


def read(folder, name):
    words = ("line", "treatment", "compound", "replicate", "curve", "contrast", "reason", "status", "ic50_text")
    return io.read_tsv(folder / name, dtype=dict.fromkeys(words, str))


def outputs(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix in (".tsv", ".png") and p.stem != "plates"}


def test_planted_plates(run_script, tmp_path):
    wells, truth = simulation_evidence_wet.plates(rng_of(1))
    io.write_tsv(wells, tmp_path / "plates.tsv")
    run_script("fit_dose_response", "--tables", "plates.tsv", "--control", "shCtrl", "--threads", "2", cwd=tmp_path)
    fits = read(tmp_path, "dose_fits.tsv")
    assert list(fits) == list(dose_response.FIT_COLUMNS)
    pooled = fits[fits["replicate"] == "all"].set_index(["line", "treatment", "compound"])
    assert len(fits) == 4 * len(pooled)
    inside: list[bool] = []
    for row in truth.to_dict("records"):
        found = pooled.loc[(row["line"], row["treatment"], row["compound"])]
        if row["reaches_half"] == keys.YES:
            assert found["ic50"] == pytest.approx(row["ic50"], rel=0.1)
            assert found["ic50_low"] < found["ic50"] < found["ic50_high"]
            inside.append(found["ic50_low"] < row["ic50"] < found["ic50_high"])
            assert found["status"] == keys.OK
        else:
            assert found["ic50_text"] == "> 12500"
            assert found["status"] == dose_response.OUT_OF_RANGE
            assert pd.isna(found["ic50"])
    assert len(inside) >= 4
    assert sum(inside) >= len(inside) - 1  # 95 % intervals
    tests = read(tmp_path, "dose_tests.tsv")
    assert list(tests) == list(dose_response.TEST_COLUMNS)
    anova = tests[(tests["test"] == "anova") & (tests["line"] == "LINE-1") & (tests["compound"] == "ADC-1")].iloc[0]
    assert (anova["df1"], anova["df2"]) == (2, 6)
    assert anova["p_value"] < 1e-4
    pair = tests[(tests["contrast"] == "shMUC3A-1_vs_shCtrl") & (tests["compound"] == "ADC-1") & (tests["test"] == "tukey_hsd")]
    assert pair.iloc[0]["fold_low"] < 60 / 480 < pair.iloc[0]["fold_high"]
    same = tests[(tests["compound"] == "PAYLOAD-1") & (tests["test"] == "tukey_hsd")].iloc[0]
    assert same["p_value"] > 0.05
    lost = tests[(tests["line"] == "LINE-2") & (tests["test"] == "anova")].iloc[0]
    assert lost["status"] == keys.NO_REPLICATES
    assert (tmp_path / "ADC-1.dose_response.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "ADC-1.dose_response.png").stat().st_size < 250_000
    points = read(tmp_path, "dose_points.tsv")
    assert list(points) == list(dose_response.POINT_COLUMNS)
    assert len(points) == len(wells)
    made = read(tmp_path, "fit_dose_response.cohort.status.tsv").iloc[0]
    assert made["status"] == keys.OK
    assert "1 with an IC50 beyond the tested doses" in made["reason"]
    first = outputs(tmp_path)

    # rows in another order, one thread: the same bytes
    io.write_tsv(wells.sample(frac=1, random_state=0), tmp_path / "plates.tsv")
    run_script("fit_dose_response", "--tables", "plates.tsv", "--control", "shCtrl", cwd=tmp_path)
    second = outputs(tmp_path)
    for name in TABLES:
        assert first[name] == second[name]
    assert first["ADC-1.dose_response.png"] == second["ADC-1.dose_response.png"]
    entry = json.loads((tmp_path / "fit_dose_response.cohort.provenance.json").read_text())
    assert entry["parameters"]["control"] == "shCtrl"


def plate(**more):
    """One well-behaved curve, three replicates of eight doses, as a list of rows."""
    rows = []
    for replicate in "123":
        for step in range(8):
            y = 5 + 95 / (1 + (2.0**step / 10) ** 1.5) + 0.3 * (-1) ** step * int(replicate)
            rows.append({"line": "L", "treatment": "t", "compound": "X", "replicate": replicate, "dose": 2.0**step, "unit": "nM",
                         "response": y, **more})  # fmt: skip
    return rows


@pytest.fixture
def within(tmp_path, script_main):
    """The step on rows of wells; `within.main` takes options as they are."""
    main = script_main("fit_dose_response")

    def call(rows, *options):
        pd.DataFrame(rows).to_csv(tmp_path / "plates.csv", index=False)
        return main("--tables", "plates.csv", *options)

    call.main = main
    return call


def test_statuses(within, tmp_path):
    flat = [{**row, "treatment": "flat", "response": 100.0} for row in plate()]
    few = [{**row, "treatment": "few"} for row in plate() if row["dose"] < 10]
    one = [{**row, "treatment": "one"} for row in plate() if row["replicate"] == "1"]
    rising = [{**row, "treatment": "up", "response": 160 - row["response"]} for row in plate()]
    same_name = [{**row, "compound": "x"} for row in plate()]
    assert within(plate() + flat + few + one + rising + same_name) == 0
    fits = read(tmp_path, "dose_fits.tsv")
    pooled = fits[(fits["replicate"] == "all") & (fits["compound"] == "X")].set_index("treatment")
    assert pooled["status"].to_dict() == {
        "t": keys.OK, "flat": dose_response.OUT_OF_RANGE, "few": keys.NOT_ESTIMABLE, "one": keys.OK, "up": keys.NOT_ESTIMABLE
    }  # fmt: skip
    assert pooled.loc["flat", "ic50_text"] == "> 128"
    assert pooled.loc["t", "ic50"] == pytest.approx(10, rel=0.15)
    assert set(fits.loc[fits["treatment"] == "one", "replicate"]) == {"all"}
    tests = read(tmp_path, "dose_tests.tsv")
    assert tests[tests["contrast"] == "t_vs_one"]["test"].tolist() == ["wald_wells", "extra_sum_of_squares_f"]
    pair = tests[tests["test"] == "wald_wells"].iloc[0]
    assert pair["status"] == keys.NO_REPLICATES
    assert (pair["unit"], pair["n_a"], pair["n_b"]) == ("well", 24, 8)
    assert pair["reason"] == "replicates with an IC50: one 1; 2 needed"
    assert pd.isna(pair["p_value"])
    assert pair["fold_change"] == pytest.approx(1, abs=0.1)
    row = read(tmp_path, "fit_dose_response.cohort.status.tsv").iloc[0]
    assert row["status"] == keys.WARNING
    assert "2 of 6 curves without an IC50" in row["reason"]
    names = sorted(p.name for p in tmp_path.glob("*.png"))
    assert names == ["X.dose_response.png", "x_2.dose_response.png"]


def test_first_compounds_are_drawn(within, tmp_path):
    rows = [{**row, "compound": f"C{at:02d}"} for at in range(14) for row in plate() if row["replicate"] == "1"]
    assert within(rows) == 0
    assert len(list(tmp_path.glob("*.png"))) == 12
    reason = read(tmp_path, "fit_dose_response.cohort.status.tsv").iloc[0]["reason"]
    assert "2 compounds not drawn: 12 pictures at most" in reason


def test_parts_in_several_processes_are_the_same(run_script, tmp_path):
    """More curves than one process takes at a time, with comparisons: equal bytes with one and two threads, in any order."""
    rng = np.random.default_rng(0)
    rows = []
    for at in range(56):
        for row in plate():
            if row["replicate"] == "1":
                noise = rng.normal(0, 3)
                rows.append({**row, "line": f"L{at % 2}", "compound": f"C{at // 2:02d}", "response": row["response"] + noise})
    made = []
    for threads, order in (("1", 1), ("2", -1)):
        folder = tmp_path / threads
        folder.mkdir()
        pd.DataFrame(rows[::order]).to_csv(folder / "wells.csv", index=False)
        run_script("fit_dose_response", "--tables", "wells.csv", "--threads", threads, cwd=folder)
        made.append(outputs(folder))
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.parametrize(("compounds", "lines"), [(250, 4), (1000, 1)])
def test_a_thousand_curves_end_in_a_minute_of_two_cores(run_script, tmp_path, root, compounds, lines):
    """The whole step, in seconds of processor time (which a loaded machine does not change): 60 s on two cores."""
    spec = importlib.util.spec_from_file_location("bench_dose_response", root / "tests" / "bench_dose_response.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    bench.table(compounds, lines, tmp_path / "wells.csv")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_script("fit_dose_response", "--tables", "wells.csv", "--threads", "2", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < bench.THREADS * bench.FLOOR_SECONDS
    fits = read(tmp_path, "dose_fits.tsv")
    assert (fits["replicate"] == "all").sum() == 1000


def test_nothing_estimable(within, tmp_path):
    assert within([row for row in plate() if row["dose"] < 10]) == 0
    assert read(tmp_path, "fit_dose_response.cohort.status.tsv").iloc[0]["status"] == keys.NOT_ESTIMABLE


def test_no_table(within, tmp_path):
    assert within.main("--tables") == 0
    for name in TABLES:
        assert len((tmp_path / name).read_text().splitlines()) == 1
    row = read(tmp_path, "fit_dose_response.cohort.status.tsv").iloc[0]
    assert (row["status"], row["reason"]) == (keys.SKIPPED_NO_INPUT, "no dose-response table was given")


def test_arbitrary_scale_and_fixed_plateaus(within, tmp_path):
    rows = [{**row, "response": row["response"] / 10} for row in plate()]
    assert within(rows, "--dose_scale", "arbitrary") == 0
    fits = read(tmp_path, "dose_fits.tsv")
    assert set(fits["ic50_kind"]) == {"relative"}
    assert fits["log10_ic50_abs"].isna().all()
    assert within(plate(), "--top_fixed", "100", "--bottom_fixed", "5") == 0
    assert set(read(tmp_path, "dose_fits.tsv")["model"]) == {"top_100_bottom_5"}


@pytest.mark.parametrize(
    ("change", "options", "part"),
    [
        ({"dose": -1}, (), "plates.csv, row 2, column dose: -1; expected 0 or above. Give doses, not their logarithms."),
        ({"unit": ""}, (), "column unit: empty in 24 rows, the first is 2; expected a unit such as nM"),
        ({"response": "n/a"}, (), "column response: 'n/a'; expected a number"),
        ({}, ("--control", "nobody"), "--control nobody: no such treatment or line; found the treatments t and the lines L"),
        ({}, ("--top_fixed", "1", "--bottom_fixed", "2"), "--top_fixed 1 is not above --bottom_fixed 2"),
    ],
)
def test_refusals(within, tmp_path, change, options, part):
    with pytest.raises(io.InputError) as error:
        within(plate(**change), *options)
    assert part in str(error.value)
    assert not (tmp_path / "dose_fits.tsv").exists()


def test_mixed_units_of_two_files_and_unreadable_files(run_script, tmp_path):
    pd.DataFrame(plate()).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(plate(unit="uM")).to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "c.csv").write_text("line,compound,dose,unit,response\n")
    done = run_script("fit_dose_response", "--tables", "a.csv", "b.csv", "c.csv", cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "compound X has doses in nM (24 rows), uM (24 rows)" in done.stderr
    assert "c.csv, row 1, table: no row below the header" in done.stderr


def test_file_that_is_no_text(within, tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00l")
    with pytest.raises(io.InputError, match=r"d\.csv: cannot be read as UTF-8 text"):
        within.main("--tables", "d.csv")
    with pytest.raises(io.InputError, match=r"nowhere\.csv: cannot be read"):
        within.main("--tables", "nowhere.csv")
