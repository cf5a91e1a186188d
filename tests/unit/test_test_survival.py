"""The script TEST_SURVIVAL through its command line: tables, statuses, faults, published cohorts."""

from __future__ import annotations

import io as memory
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scresist import io, keys
from scresist.comparison import TEST_COLUMNS
from scresist.simulation_evidence_survival import bulk_cohort

FILES = ("survival_summary.tsv", "cox.tsv", "logrank.tsv", "km.tsv", "survival_groups.tsv", "kaplan_meier.png",
         "hazard_ratios.png")  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A planted cohort as files: clinical table with scores, expression, gene sets, modules."""
    folder = tmp_path_factory.mktemp("bulk")
    made = bulk_cohort(np.random.default_rng(3), 120, 2.2, "MUC3A", companions=("FABP1", "REG1A", "MUC17"))
    rng = np.random.default_rng(4)
    clinical = made.clinical.assign(
        ihc=np.clip(np.round(made.expression.loc["MUC3A"].rank(pct=True) * 4 + rng.normal(0, 0.5, 120)), 0, 4).to_numpy(),
        site=rng.choice(["lung", "liver"], 120), unrelated="x",
    )  # fmt: skip
    clinical.to_csv(folder / "clinical.csv", index=False)
    # a measured sample without a clinical row, a constant gene, a patient without a value
    expression = made.expression.assign(Q9=1.0)
    expression.loc["FLAT"] = 3.0
    expression.loc["CST3", "B001"] = np.nan
    expression.to_csv(folder / "expression.tsv.gz", sep="\t")
    (folder / "sets.gmt").write_text("lipid\tx\tFABP1\tREG1A\tMUC17\nabsent\tx\tNOPE1\tNOPE2\tFABP1\n")
    members = {"gene": ["FABP1", "REG1A", "G001", "G002"], "module": ["M2", "M2", "M10", "grey"], "kme": [0.9, 0.8, 0.7, 0]}
    io.write_tsv(pd.DataFrame(members), folder / "modules.tsv")
    return folder


@pytest.fixture(scope="module")
def full(cohort, run_script):
    """A run with everything."""
    folder = cohort / "full"
    folder.mkdir()
    run_script("test_survival", *everything(cohort), cwd=folder)
    return folder


def everything(cohort, clinical="clinical.csv", expression="expression.tsv.gz"):
    return [
        "--dataset", "bulk", "--clinical", cohort / clinical, "--expression", cohort / expression,
        "--markers", "MUC3A,CST3,NOPE,FLAT", "--scores", "ihc", "--groups", "stage,unrelated", "--covariates", "age,site",
        "--strata", "stage", "--signatures", cohort / "sets.gmt", "--modules", cohort / "modules.tsv",
        "--cuts", "median,tertiles,ihc:>=2", "--scan", "--permutations", 199, "--endpoint", "PFS",
    ]  # fmt: skip


@pytest.fixture
def step(script_main):
    """Run it: step(options)."""
    main = script_main("test_survival")

    def run(*options):
        assert main(*options) == 0

    return run


@pytest.fixture
def refused(script_main):
    """Run it on input that cannot be used; returns the message."""
    main = script_main("test_survival")

    def run(*options):
        with pytest.raises(io.InputError) as caught:
            main(*options)
        return str(caught.value)

    return run


def status_of(folder, unit="bulk"):
    return io.read_tsv(folder / f"test_survival.{unit}.status.tsv", dtype=str).fillna("").iloc[0]


def rows(folder, name, **where):
    frame = io.read_tsv(folder / name)
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def small(folder, name="clinical.csv", sep=",", **columns):
    n = len(next(iter(columns.values())))
    frame = pd.DataFrame({"patient": [f"P{i:02d}" for i in range(n)], **columns})
    frame.to_csv(folder / name, index=False, sep=sep)
    return folder / name


def test_planted_marker_is_found(full):
    row = rows(full, "bulk.cox.tsv", marker="MUC3A", model="univariate").iloc[0]
    assert row["ci_low"] < 2.2 < row["ci_high"]
    assert row["p"] < 1e-6
    assert row["per"] == "sd"
    assert row["kind"] == "gene"
    assert row["n"] == 120
    adjusted = rows(full, "bulk.cox.tsv", marker="MUC3A", model="adjusted").iloc[0]
    assert adjusted["adjusted_for"] == "age,site,strata(stage)"
    assert adjusted["ci_low"] < 2.2 < adjusted["ci_high"]
    null = rows(full, "bulk.cox.tsv", marker="CST3", model="univariate").iloc[0]
    assert null["n"] == 119  # one patient without a value
    assert null["ci_low"] < 1 < null["ci_high"]


def test_every_kind_of_marker_has_its_rows(full):
    cox = rows(full, "bulk.cox.tsv", model="univariate")
    assert list(dict.fromkeys(cox["kind"])) == ["gene", "score", "group", "module", "signature"]
    assert cox.loc[cox["kind"] == "group", "per"].dropna().tolist() == ["III vs II", "IV vs II"]
    assert cox.loc[cox["kind"] == "module", "marker"].tolist() == ["M2", "M10"]  # grey is no module
    assert cox.loc[cox["marker"] == "lipid", "source"].tolist() == ["sets"]
    assert cox.loc[cox["marker"] == "lipid", "n_genes_measured"].tolist() == [3]
    reason = dict(zip(cox["marker"], cox["reason"].fillna(""), strict=True))
    word = dict(zip(cox["marker"], cox["status"], strict=True))
    assert word["NOPE"] == word["FLAT"] == word["unrelated"] == word["absent"] == keys.NOT_ESTIMABLE
    assert reason["NOPE"].startswith("gene_absent: not among the 301 genes of the table")
    assert reason["FLAT"].startswith("constant: the 120 patients")
    assert reason["absent"] == "few_genes: 1 of 3 genes measured, half of them needed"
    empty = cox[cox["status"] == keys.NOT_ESTIMABLE]
    assert empty[["hr", "ci_low", "ci_high", "p", "padj", "concordance"]].isna().all().all()
    # every marker has its rows in both models; the stratum cannot be tested within itself
    adjusted = rows(full, "bulk.cox.tsv", model="adjusted").set_index("marker")
    assert list(adjusted.index) == list(dict.fromkeys(cox["marker"]))
    assert adjusted.loc["stage", "reason"].startswith("stratum: the marker is the stratum")
    assert rows(full, "bulk.logrank.tsv", marker="stage")["p_stratified"].isna().all()
    # adjusted within model and kind
    genes = cox[(cox["kind"] == "gene") & cox["p"].notna()].sort_values("p")
    assert genes["padj"].iloc[0] == pytest.approx(2 * genes["p"].iloc[0], rel=1e-5)
    assert set(genes["adjust_method"]) == {"BH:genes"}


def test_ratio_per_sd_equals_statsmodels(full, cohort):
    from statsmodels.duration.hazard_regression import PHReg

    clinical = pd.read_csv(cohort / "clinical.csv")
    score = clinical["ihc"].to_numpy()
    fit = PHReg(clinical["time"], (score / score.std(ddof=1))[:, None], status=clinical["event"], ties="efron").fit()
    row = rows(full, "bulk.cox.tsv", marker="ihc", model="univariate").iloc[0]
    assert np.log(row["hr"]) == pytest.approx(fit.params[0], abs=5e-5)
    assert np.log(row["ci_high"]) == pytest.approx(fit.conf_int()[0, 1], abs=5e-5)


def test_logrank_rows(full, cohort):
    logrank = rows(full, "bulk.logrank.tsv")
    mine = logrank[logrank["marker"] == "MUC3A"]
    assert mine["cut"].tolist() == ["median", "tertiles", "scan"]
    median, tertiles, scan = mine.to_dict("records")
    assert (median["n_low"], median["n_high"], median["operator"], median["df"]) == (60, 60, ">", 1)
    assert median["median_high"] < median["median_low"]
    assert (tertiles["df"], tertiles["n_low"], tertiles["n_high"]) == (2, 40, 40)
    assert re.fullmatch(r"low=40( \(median .*\))?;middle=40 \(median .*\);high=40 \(median .*\)", tertiles["groups"])
    assert median["p_stratified"] < 0.01
    assert (scan["scanned"], scan["evidence"], scan["status"]) == (True, keys.EXPLORATORY, keys.WARNING)
    assert scan["p"] == pytest.approx(1 / 200)
    # no chi-square from which the p of the cut itself could be taken; the maximum that was compared stands apart
    assert np.isnan([scan["chi2"], scan["df"], median["statistic"]]).all()
    assert scan["statistic"] > np.sqrt(median["chi2"])
    assert scan["reason"].startswith("scanned: the best of ")
    assert not median["scanned"]
    # the score has its own cut and no other; ties go up with >=
    score = logrank[(logrank["marker"] == "ihc") & ~logrank["scanned"]]
    assert score[["cut", "operator"]].to_numpy().tolist() == [["2", ">="]]
    ihc = pd.read_csv(cohort / "clinical.csv")["ihc"]
    assert score["n_high"].iloc[0] == (ihc >= 2).sum()
    levels = logrank[logrank["marker"] == "stage"].iloc[0]
    assert (levels["cut"], levels["df"]) == ("levels", 2)
    alone = logrank[logrank["marker"] == "unrelated"].iloc[0]
    assert alone["status"] == keys.NOT_ESTIMABLE
    assert alone["reason"].startswith("small_group: one group only")


def test_curves(full, cohort):
    km = rows(full, "bulk.km.tsv")
    everyone = km[km["cut"] == "none"]
    assert everyone["at_risk"].iloc[0] == 120
    assert everyone["events"].sum() == pd.read_csv(cohort / "clinical.csv")["event"].sum()
    high = km[(km["marker"] == "MUC3A") & (km["cut"] == "median") & (km["group"] == "high")]
    assert high["survival"].iloc[0] == 1
    assert high["survival"].is_monotonic_decreasing
    assert (high["ci_low"].dropna() <= high["survival"][high["ci_low"].notna()]).all()
    assert "scan" not in set(km["cut"])
    summary = rows(full, "bulk.survival_summary.tsv").iloc[0]
    assert (summary["n_patients"], summary["n_expression"], summary["orientation"]) == (120, 121, "genes x patients")
    assert summary["endpoint"] == "PFS"
    assert summary["n_estimated"] == 7  # MUC3A, CST3, ihc, stage, M2, M10, lipid


def test_early_against_late(full, cohort):
    groups = rows(full, "bulk.survival_groups.tsv")
    assert set(TEST_COLUMNS) <= set(groups)
    row = groups[groups["marker"] == "MUC3A"].iloc[0]
    clinical = pd.read_csv(cohort / "clinical.csv")
    early, late = (clinical["time"] < 12) & (clinical["event"] == 1), clinical["time"] >= 12
    assert (row["n_a"], row["n_b"], row["n_unknown"]) == (early.sum(), late.sum(), 120 - early.sum() - late.sum())
    assert (row["contrast"], row["unit"], row["split_time"]) == ("early_vs_late", "patient", 12)
    assert row["effect"] > 0
    assert row["p_value"] < 0.01
    assert set(groups["adjust_method"]) == {"BH:genes", "BH:scores", "BH:modules", "BH:signatures"}
    flat = groups[groups["marker"] == "FLAT"].iloc[0]
    assert (flat["status"], flat["reason"]) == (keys.NOT_ESTIMABLE, "constant: the patients do not differ")


def test_status_and_provenance(full):
    row = status_of(full)
    assert (row["status"], row["unit_type"], row["n_patients"]) == (keys.WARNING, "dataset", "120")
    for part in (
        "unmatched: 0 of 120 patients without expression, 1 of 121 measured samples",
        "gene_absent: NOPE",
        "few_genes: 1 of 4",
    ):
        assert part in row["reason"]
    assert "120 patients" in row["sentence"]
    assert "hazard ratio" in row["sentence"]
    entry = json.loads((full / "test_survival.bulk.provenance.json").read_text())
    assert entry["packages"]["lifelines"]
    assert entry["parameters"]["cuts"] == ["median", "tertiles", "ihc:>=2"]
    for name in FILES[-2:]:
        content = (full / f"bulk.{name}").read_bytes()
        assert len(content) < 250_000
        with Image.open(memory.BytesIO(content)) as image:
            assert image.format == "PNG"


def test_any_order_of_the_input_gives_the_same_bytes(full, cohort, run_script, tmp_path):
    pd.read_csv(cohort / "clinical.csv").sample(frac=1, random_state=1).to_csv(tmp_path / "c.tsv", index=False, sep="\t")
    table = pd.read_csv(cohort / "expression.tsv.gz", sep="\t", index_col=0)
    table.T.sample(frac=1, random_state=2).to_csv(tmp_path / "e.csv", index_label="id")
    run_script("test_survival", *everything(cohort, tmp_path / "c.tsv", tmp_path / "e.csv"), "--threads", 2, cwd=tmp_path)
    for name in FILES:
        if name != "survival_summary.tsv":  # it says how the table lies
            assert (tmp_path / f"bulk.{name}").read_bytes() == (full / f"bulk.{name}").read_bytes(), name


def test_scores_without_expression_and_the_sheet(step, tmp_path):
    rng = np.random.default_rng(1)
    small(tmp_path, OS=np.arange(1, 41), dead=[1, 0] * 20, PGR=rng.normal(size=40), extra=rng.normal(size=40))
    (tmp_path / "sheet.csv").write_text(
        "dataset,clinical,expression,time_column,event_column,time_unit,markers,cuts,split_months\n"
        "other,x.csv,,,,,,,\nihc,clinical.csv,,OS,dead,weeks,PGR;NOPE,>=0,6\n"
    )
    step("--dataset", "ihc", "--clinical", "clinical.csv", "--sheet", "sheet.csv", "--seed", 2)
    cox = rows(tmp_path, "ihc.cox.tsv")
    assert cox["kind"].tolist() == ["score", "gene"]
    assert cox["status"].tolist() == [keys.OK, keys.NOT_ESTIMABLE]
    assert "no expression table" in cox["reason"].iloc[1]
    assert rows(tmp_path, "ihc.logrank.tsv")[["cut", "operator"]].to_numpy().tolist() == [[0, ">="]] * 2
    groups = rows(tmp_path, "ihc.survival_groups.tsv").iloc[0]
    assert groups["split_time"] == 26  # whole weeks
    assert groups["time_unit"] == "weeks"
    summary = rows(tmp_path, "ihc.survival_summary.tsv").iloc[0]
    assert np.isnan(summary["n_expression"])


def test_few_events_small_groups_and_no_split(step, tmp_path):
    rng = np.random.default_rng(2)
    small(tmp_path, time=np.arange(1, 13), event=[1, 1, 1, 0] + [0] * 8, a=rng.normal(size=12), g=["x"] * 6 + ["y"] * 5 + ["z"])
    step("--dataset", "d", "--clinical", "clinical.csv", "--scores", "a", "--groups", "g", "--cuts", "tertiles,median",
        "--split_months", 0)  # fmt: skip
    row = status_of(tmp_path, "d")
    assert row["status"] == keys.WARNING
    assert "few_events: 3 found, 10 advised" in row["reason"]
    cox = rows(tmp_path, "d.cox.tsv")
    assert cox["status"].iloc[0] == keys.WARNING
    logrank = rows(tmp_path, "d.logrank.tsv")
    tertiles, median, levels = logrank.to_dict("records")
    assert tertiles["status"] == keys.NOT_ESTIMABLE
    assert tertiles["reason"] == "small_group: low 4, middle 4, high 4; 5 patients in each group needed"
    assert np.isnan(tertiles["p"])
    assert median["status"] == keys.WARNING
    assert levels["status"] == keys.WARNING
    assert levels["reason"].startswith("small_group: z 1 left out")
    assert levels["df"] == 1
    assert levels["reason"].endswith("; few_events: 3 found, 10 advised")
    assert rows(tmp_path, "d.survival_groups.tsv").empty


def test_scores_reach_further_than_expression(step, tmp_path):
    rng = np.random.default_rng(7)
    small(tmp_path, time=np.arange(1, 61), event=[1, 0, 1] * 20, ihc=[*rng.normal(size=59), ""], stage=["II", "III"] * 30)
    names = [f"P{i:02d}" for i in range(0, 60, 5)]  # 12 of 60 were measured
    pd.DataFrame(rng.normal(size=(2, 12)), index=["A", "B"], columns=names).to_csv(tmp_path / "e.csv")
    (tmp_path / "s.gmt").write_text("both\tx\tA\tB\n")
    given = ["--dataset", "d", "--clinical", "clinical.csv", "--expression", "e.csv", "--markers", "A", "--signatures", "s.gmt"]
    step(*given, "--scores", "ihc", "--groups", "stage", "--covariates", "stage")
    n = rows(tmp_path, "d.cox.tsv", model="univariate").set_index("marker")["n"]
    assert n.to_dict() == {"A": 12, "ihc": 59, "stage": 60, "both": 12}
    n = rows(tmp_path, "d.logrank.tsv").set_index("marker")["n"]
    assert n.to_dict() == {"A": 12, "ihc": 59, "stage": 60, "both": 12}
    groups = rows(tmp_path, "d.survival_groups.tsv").set_index("marker")
    assert groups.loc["ihc", ["n_a", "n_b", "n_unknown"]].sum() == 59
    assert status_of(tmp_path, "d")["n_patients"] == "60"
    assert "unmatched: 48 of 60 patients without expression" in status_of(tmp_path, "d")["reason"]
    # the values of genes are those of the patients they were measured in
    from statsmodels.duration.hazard_regression import PHReg

    clinical = pd.read_csv(tmp_path / "clinical.csv").set_index("patient").loc[names]
    values = pd.read_csv(tmp_path / "e.csv", index_col=0).loc["A", names].to_numpy()
    fit = PHReg(clinical["time"], values[:, None] / values.std(ddof=1), status=clinical["event"], ties="efron").fit()
    row = rows(tmp_path, "d.cox.tsv", model="univariate", marker="A").iloc[0]
    assert np.log(row["hr"]) == pytest.approx(fit.params[0], abs=5e-5)
    # genes alone: who was not measured is not analysed
    step(*given)
    assert status_of(tmp_path, "d")["n_patients"] == "12"
    assert rows(tmp_path, "d.survival_summary.tsv")[["n_clinical", "n_patients"]].iloc[0].tolist() == [60, 12]
    km = rows(tmp_path, "d.km.tsv", cut="none")
    assert km["at_risk"].iloc[0] == 12


def test_an_adjusted_model_names_what_it_adjusts_for(step, tmp_path):
    rng = np.random.default_rng(8)
    small(tmp_path, time=np.arange(1, 61), event=[1, 0, 1] * 20, age=rng.normal(60, 9, 60), grade=rng.normal(size=60),
          same=["x"] * 60, site=["a", "b"] * 30)  # fmt: skip
    given = ["--dataset", "d", "--clinical", "clinical.csv", "--scores", "age,grade", "--covariates"]

    def adjusted(*options):
        step(*given, *options)
        return rows(tmp_path, "d.cox.tsv", model="adjusted").fillna("").set_index("marker")

    cox = adjusted("age")
    assert cox.loc["age", ["adjusted_for", "hr", "status", "reason"]].tolist() == [
        "", "", keys.NOT_ESTIMABLE, "no_covariate: the marker is the only covariate",
    ]  # fmt: skip
    assert cox.loc["grade", ["adjusted_for", "status"]].tolist() == ["age", keys.OK]
    cox = adjusted("age,same")
    assert cox.loc["age", "reason"] == "no_covariate: no variation of same in 60 patients"
    assert cox.loc["grade", ["adjusted_for", "status"]].tolist() == ["age", keys.WARNING]
    assert cox.loc["grade", "reason"] == "constant_covariate: same left out"
    cox = adjusted("age", "--strata", "site")
    assert cox.loc["age", ["adjusted_for", "status"]].tolist() == ["strata(site)", keys.OK]
    assert cox.loc["grade", "adjusted_for"] == "age,strata(site)"


def test_strata_that_nobody_shares(step, tmp_path):
    rng = np.random.default_rng(9)
    small(tmp_path, time=np.arange(1, 41), event=[1, 0] * 20, s=rng.normal(size=40), centre=[f"c{i}" for i in range(40)])
    step("--dataset", "d", "--clinical", "clinical.csv", "--scores", "s", "--strata", "centre")
    told = "strata: in none of the 40 strata is another patient observed when an event happens"
    assert rows(tmp_path, "d.cox.tsv", model="adjusted")["reason"].tolist() == [told]
    row = rows(tmp_path, "d.logrank.tsv").iloc[0]
    assert row["status"] == keys.WARNING
    assert row["reason"] == "strata: in none of the 40 strata are several groups observed when an event happens"
    assert np.isfinite(row["p"])
    assert np.isnan(row["p_stratified"])


def test_events_of_the_groups_that_are_compared(step, tmp_path):
    small(tmp_path, time=np.arange(1, 25), event=[1] * 4 + [0] * 16 + [1] * 4, g=["x", "y"] * 10 + ["z"] * 4)
    step("--dataset", "d", "--clinical", "clinical.csv", "--groups", "g", "--min_events", 5)
    row = rows(tmp_path, "d.logrank.tsv").iloc[0]
    assert row["events"] == 8
    assert row["reason"] == "small_group: z 4 left out; 5 patients needed; few_events: 4 found, 5 advised"


def test_a_warning_makes_a_relation_exploratory(step, tmp_path):
    time, event = np.arange(1, 31), [1, 1, 1, 1, 1] + [0] * 25
    score = np.where(np.array(event) == 1, 5.0, 0.0) + np.tile([0.0, 1, 2, 4.9, 3, 5.2], 5)
    small(tmp_path, time=time, event=event, s=score)
    step("--dataset", "d", "--clinical", "clinical.csv", "--scores", "s")
    row = rows(tmp_path, "d.cox.tsv").iloc[0]
    assert row["padj"] < 0.05
    assert row["status"] == keys.WARNING
    sentence = status_of(tmp_path, "d")["sentence"]
    assert "0 of 1 testable markers relate to it" in sentence
    assert sentence.endswith("; 1 more with a warning, which is exploratory.")
    assert "hazard ratio" not in sentence


@pytest.mark.parametrize(
    ("options", "event", "word", "reason"),
    [
        (
            ["--scores", "a"],
            [0] * 12,
            keys.NOT_ESTIMABLE,
            "no marker could be tested in 12 patients with 0 events; the first: few_events",
        ),
        ([], [1] * 12, keys.SKIPPED_NO_INPUT, "no marker, score, group, module or signature was named"),
    ],
)
def test_nothing_to_test_still_writes_every_file(step, tmp_path, options, event, word, reason):
    small(tmp_path, time=np.arange(1, 13), event=event, a=np.arange(12) % 5)
    step("--dataset", "d", "--clinical", "clinical.csv", *options, "--scan")
    row = status_of(tmp_path, "d")
    assert row["status"] == word
    assert row["reason"].startswith(reason)
    for name in FILES:
        assert (tmp_path / f"d.{name}").stat().st_size > 0
    assert rows(tmp_path, "d.cox.tsv")["hr"].isna().all()
    assert rows(tmp_path, "d.logrank.tsv")["p"].isna().all()


def test_linear_expression_and_unmatched_patients_are_remarked(step, tmp_path):
    rng = np.random.default_rng(3)
    small(tmp_path, time=np.arange(30, 930, 30), event=[1, 0] * 15)
    names = [f"P{i:02d}" for i in range(5, 30)]
    pd.DataFrame(rng.lognormal(5, 1, (2, 25)), index=["A", "B"], columns=names).to_csv(tmp_path / "e.csv")
    with (tmp_path / "e.csv").open("a") as out:
        out.write("A," + ",".join(["1"] * 25) + "\n")
    step("--dataset", "d", "--clinical", "clinical.csv", "--expression", "e.csv", "--markers", "A")
    row = status_of(tmp_path, "d")
    assert row["status"] == keys.WARNING
    for part in (
        "unmatched: 5 of 30 patients without expression, 0 of 25 measured samples",
        "repeated_genes: 1 stand more than once (A)",
        "no_log_scale: expression up to",
        "time_unit: the longest time is 900 months; is --time_unit right?",
    ):
        assert part in row["reason"]
    assert row["n_patients"] == "25"


def test_all_faults_at_once(refused, tmp_path):
    small(tmp_path, time=[-1, 0, 3, 4], event=[1, 2, 0, 1], note=["a", "b", "c", "d"])
    (tmp_path / "e.csv").write_text("gene,X1,X2\nA,1,2\n")
    (tmp_path / "bad.gmt").write_text("alone\n")
    (tmp_path / "modules.tsv").write_text("a\tb\n1\t2\n")
    text = refused("--dataset", "d", "--clinical", "clinical.csv", "--expression", "e.csv", "--markers", "A", "--scores", "note",
        "--groups", "nope", "--signatures", "bad.gmt", "--modules", "modules.tsv", "--cuts", "mean,Z:>2")  # fmt: skip
    for part in (
        "column nope: no such column",
        "'mean' is no cut",
        "Z:>2 names no marker",
        "none of its columns (X1, X2, ...)",
        "bad.gmt is no gene set collection",
        "modules.tsv: no column gene, module",
        "clinical.csv: row 2, column time: '-1' (patient P00)",
        "row 3, column time: '0' (patient P01); expected a time above 0. Nobody is observed for no time",
        "row 3, column event: '2' (patient P01); expected 0 or 1",
        "row 2, column note: 'a' (patient P00); expected a number",
    ):
        assert part in text, text
    assert not list(tmp_path.glob("d.*"))


def test_bad_sheets(refused, tmp_path):
    small(tmp_path, time=[1, 2], event=[1, 0])
    for text, part in (
        ("name\nd\n", "no column dataset"),
        ("dataset,colour\nd,red\n", "column colour: unknown"),
        ("dataset\nx\n", "d stands in 0 rows"),
        ("dataset,time_unit\nd,fortnights\n", "row 2, column time_unit: 'fortnights' is not one of days, weeks, months, years"),
    ):
        (tmp_path / "s.csv").write_text(text)
        assert part in refused("--dataset", "d", "--clinical", "clinical.csv", "--sheet", "s.csv")
    assert "m.tsv: cannot be read" in refused("--dataset", "d", "--clinical", "clinical.csv", "--modules", "m.tsv")


def test_sets_need_expression(refused, tmp_path):
    small(tmp_path, time=[1, 2], event=[1, 0])
    (tmp_path / "s.gmt").write_text("a\tb\tC\n")
    text = refused("--dataset", "d", "--clinical", "clinical.csv", "--signatures", "s.gmt")
    assert "need --expression" in text


# --- real cohorts


@pytest.mark.real
def test_lung(shared_data, run_script, tmp_path):
    lung = pd.read_csv(shared_data / "surv_classic" / "lung.csv")
    lung.insert(0, "patient", [f"L{i:03d}" for i in range(len(lung))])
    lung.to_csv(tmp_path / "as_given.csv", index=False)
    options = ["--dataset", "lung", "--time_unit", "days", "--groups", "sex", "--event_column"]
    done = run_script("test_survival", "--clinical", "as_given.csv", *options, "status", cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert "1 (censored) becomes 0, 2 (event) becomes 1" in done.stderr
    lung.assign(dead=(lung["status"] - 1).astype(int)).to_csv(tmp_path / "lung.csv", index=False)
    run_script("test_survival", "--clinical", "lung.csv", *options, "dead", cwd=tmp_path)
    row = rows(tmp_path, "lung.cox.tsv").iloc[0]
    assert row["per"] == "2 vs 1"
    assert row["hr"] == pytest.approx(0.588, abs=5e-4)
    assert row["p"] == pytest.approx(0.00149, abs=5e-6)
    assert rows(tmp_path, "lung.logrank.tsv")["chi2"].iloc[0] == pytest.approx(10.3, abs=0.05)


@pytest.mark.real
def test_gastric_cohort(shared_data, run_script, tmp_path):
    folder = shared_data / "bulk_gastric"
    run_script(
        "test_survival", "--dataset", "acrg", "--clinical", folder / "GSE62254_ACRG_survival_subtype.tsv",
        "--expression", folder / "GSE62254_ACRG_expr_1055x300.tsv.gz", "--patient_column", "GEO_ID", "--time_column", "t",
        "--event_column", "e", "--groups", "ACRG.sub", "--markers", "MKI67,ZEB1,SPARC,MUC3A,CST3,ERBB2", cwd=tmp_path,
    )  # fmt: skip
    cox = rows(tmp_path, "acrg.cox.tsv").set_index("marker")
    assert cox.loc["MKI67", ["n", "events"]].tolist() == [300, 152]
    for gene, ratio in (("MKI67", 0.76), ("ZEB1", 1.48), ("SPARC", 1.34)):
        assert cox.loc[gene, "hr"] == pytest.approx(ratio, abs=0.005)
    for gene in ("MUC3A", "CST3", "ERBB2"):
        assert cox.loc[gene, "status"] == keys.NOT_ESTIMABLE
        assert cox.loc[gene, "reason"].startswith("gene_absent: not among the 1055 genes")
    logrank = rows(tmp_path, "acrg.logrank.tsv").set_index("marker")
    assert logrank.loc["ACRG.sub", "chi2"] == pytest.approx(18.97, abs=0.005)
    assert logrank.loc["ACRG.sub", "p"] == pytest.approx(2.8e-4, abs=5e-6)
    assert logrank.loc["MKI67", "p"] == pytest.approx(0.011, abs=5e-4)


@pytest.mark.real
def test_metabric(shared_data, run_script, tmp_path):
    table = pd.read_csv(shared_data / "metabric" / "metabric_IHC4.tsv", sep="\t", dtype=str)
    table.insert(0, "patient", [f"MB{i:04d}" for i in range(len(table))])
    table.to_csv(tmp_path / "all.tsv", sep="\t", index=False)
    options = ["--dataset", "metabric", "--time_column", "time_months", "--markers", "PGR,ERBB2,MKI67"]
    done = run_script("test_survival", "--clinical", "all.tsv", *options, cwd=tmp_path, check=False)
    assert done.returncode == 65
    assert done.stderr.count("column time_months: '0.0'") == 1  # one patient of the real table
    table[table["time_months"].astype(float) > 0].to_csv(tmp_path / "kept.tsv", sep="\t", index=False)
    run_script("test_survival", "--clinical", "kept.tsv", *options, "--covariates", "age", cwd=tmp_path)
    cox = rows(tmp_path, "metabric.cox.tsv", model="univariate").set_index("marker")
    for gene, ratio in (("PGR", 0.86), ("ERBB2", 1.12), ("MKI67", 1.12)):
        assert cox.loc[gene, "hr"] == pytest.approx(ratio, abs=0.005)
        assert cox.loc[gene, "kind"] == "score"
    assert cox["n"].tolist() == [1903] * 3
