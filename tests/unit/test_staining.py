"""Staining kernel: hand-worked analyses of variance, closed forms, statsmodels, faults of tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scresist import comparison, keys, long_table, staining

PHASES = pd.DataFrame(
    {
        "phase": ["PRE", "RES", "POST", "PRE-R"], "order": [1, 2, 3, 4], "time": [0.0, 1.0, 2.0, np.nan],
        "role": [keys.ROLE_BASELINE, keys.ROLE_RESPONSE, keys.ROLE_ACQUIRED, keys.ROLE_PRIMARY],
    }
)  # fmt: skip
ORDER = PHASES["phase"].tolist()
HEAD = "patient,sample,phase,section,field,marker,value,n_cells\n"


def parsed(text):
    return long_table.parse(text, "fields.csv", staining.ALIASES)


def table(groups, kind="intensity", marker="M", patient="P1", n_cells=100.0):
    """Fields: (patient, sample, phase) -> values, or phase -> values of one patient."""
    rows = []
    for key, values in groups.items():
        who, sample, phase = key if isinstance(key, tuple) else (patient, f"{patient}-{key}", key)
        for i, value in enumerate(values):
            rows.append((marker, "G", kind, who, sample, phase, "1", str(i), float(value), n_cells))
    columns = ["marker", "gene", "kind", "patient", "sample", "phase", "section", "field", "value", "n_cells"]
    return pd.DataFrame(rows, columns=columns)


THREE = {"PRE": [6, 8, 4, 5, 3, 4], "RES": [8, 12, 9, 11, 6, 8], "POST": [13, 9, 11, 8, 7, 12]}


def test_three_groups_by_hand():
    # the textbook case: means 5, 9, 10; SSB = 84, SSW = 68; F(2, 15) = 42 / 4.5333 = 9.2647
    rows = {(r["test"], r["contrast"]): r for r in staining.field_rows(table(THREE), "P1", ORDER, 0.05)}
    anova = rows["anova", "phases"]
    assert (anova["df1"], anova["df2"]) == (2, 15)
    assert anova["statistic"] == pytest.approx(42 / (68 / 15))
    assert anova["effect"] == pytest.approx(84 / 152)
    assert (anova["unit"], anova["evidence"], anova["patient"]) == ("field", keys.SINGLE_PATIENT, "P1")
    pair = rows["tukey_hsd", "RES_vs_PRE"]
    q = 4 / np.sqrt(68 / 15 / 6)
    assert pair["p_value"] == pytest.approx(stats.studentized_range.sf(q, 3, 15), abs=1e-6)
    half = stats.studentized_range.ppf(0.95, 3, 15) * np.sqrt(68 / 15 / 6)
    assert (pair["ci_low"], pair["ci_high"]) == (pytest.approx(4 - half, abs=1e-6), pytest.approx(4 + half, abs=1e-6))
    assert (pair["mean_a"], pair["mean_b"], pair["effect"]) == (9, 5, 4)
    assert {name for test, name in rows if test == "tukey_hsd"} == {"RES_vs_PRE", "POST_vs_PRE", "POST_vs_RES"}
    rank = rows["kruskal_wallis", "phases"]
    assert rank["statistic"] == pytest.approx(stats.kruskal(*THREE.values()).statistic)
    assert rows["dunn", "POST_vs_PRE"]["statistic"] > 0  # later minus earlier


def test_five_fields_in_three_phases_give_2_and_12():
    rng = np.random.default_rng(0)
    rows = staining.field_rows(table({p: rng.random(5) for p in ("PRE", "RES", "POST")}, "share"), "P1", ORDER, 0.05)
    assert (rows[0]["df1"], rows[0]["df2"]) == (2, 12)
    assert rows[0]["transform"] == "arcsine_root"


def test_shares_are_transformed_for_the_analysis_of_variance():
    groups = {"PRE": [0.1, 0.2, 0.15], "POST": [0.5, 0.6, 0.4]}
    changed = [np.arcsin(np.sqrt(v)) for v in groups.values()]
    expected = stats.f_oneway(*changed)
    for kind, scale in (("share", 1), ("percent", 100)):
        rows = staining.field_rows(table({p: np.multiply(v, scale) for p, v in groups.items()}, kind), "P1", ORDER, 0.05)
        assert rows[0]["statistic"] == pytest.approx(expected.statistic)
        pair = next(r for r in rows if r["test"] == "tukey_hsd")
        assert pair["effect"] == pytest.approx(changed[1].mean() - changed[0].mean())
        assert pair["mean_a"] == pytest.approx(0.5 * scale)
        assert pair["effect_name"] == "mean_difference_arcsine_root"


def test_too_few_fields_and_constant_values():
    rows = staining.field_rows(table({"PRE": [1], "POST": [2, 3]}), "P1", ORDER, 0.05)
    assert [r["status"] for r in rows] == [keys.NOT_ESTIMABLE] * 2
    assert rows[0]["reason"] == "1 phases with 2 fields or more, 2 needed (PRE=1;POST=2)"
    rows = staining.field_rows(table({"PRE": [1, 2], "RES": [5], "POST": [2, 3]}), "P1", ORDER, 0.05)
    assert rows[0]["status"] == keys.WARNING
    assert rows[0]["reason"] == "left out, fewer than 2 fields: RES 1"
    for groups in ({"PRE": [1, 1], "POST": [1, 1]}, {"PRE": [1, 1], "POST": [2, 2]}):
        rows = staining.field_rows(table(groups), "P1", ORDER, 0.05)
        assert rows[0]["status"] == keys.NOT_ESTIMABLE
        assert np.isnan(rows[0]["p_value"])
        pair = next(r for r in rows if r["test"] == "tukey_hsd")
        assert np.isnan(pair["p_value"])


def cohort(n_patients=4, n_fields=5, shift=2.0, seed=0, spread=0.7):
    """n patients with PRE and as many others with POST, `shift` apart."""
    rng = np.random.default_rng(seed)
    groups = {}
    for phase, move in (("PRE", 0.0), ("POST", shift)):
        for i in range(n_patients):
            who = f"{phase[:2]}{i}"
            groups[who, f"S{who}", phase] = 5 + move + rng.normal(0, spread) + rng.normal(0, 0.4, n_fields)
    return groups


def test_sample_value_is_the_mean_of_sections():
    made = table({"PRE": [1, 2, 3, 10]})
    made["section"] = ["a", "a", "a", "b"]
    (row,) = staining.sample_values(made).to_dict("records")
    assert row["value"] == pytest.approx((2 + 10) / 2)
    assert (row["n_sections"], row["n_fields"], row["n_cells"], row["median"]) == (2, 4, 400, 2.5)
    assert staining.sample_values(table({"PRE": [1]}))["status"].tolist() == [keys.WARNING]


def test_patients_are_the_unit_where_two_stand_on_each_side():
    fields = table(cohort())
    values = staining.sample_values(fields)
    tests = staining.all_tests(fields, values, PHASES)
    assert set(tests["unit"]) == {"patient"}
    row = tests[tests["test"] == "rank_sum_exact"].iloc[0]
    means = values.set_index("sample")["value"]
    a, b = (means[means.index.str.startswith(s)].to_numpy() for s in ("SPO", "SPR"))
    assert row["p_value"] == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    assert row["effect"] == pytest.approx(a.mean() - b.mean())
    assert (row["contrast"], row["n_patients_a"], row["evidence"]) == ("POST_vs_PRE", 4, keys.REPLICATED)
    assert row["mean_a"] == pytest.approx(a.mean())
    # balanced fields: the mixed model is the t test on patient means
    mixed = tests[tests["test"] == staining.MIXED].iloc[0]
    t = stats.ttest_ind(a, b)
    assert mixed["statistic"] == pytest.approx(t.statistic, rel=1e-4)
    assert mixed["p_value"] == pytest.approx(t.pvalue, rel=1e-3)
    assert (mixed["df2"], mixed["unit"]) == (6, "patient")
    both = staining.all_tests(fields, values, PHASES, "field")
    assert len(both) == len(tests)  # nobody has two phases: fields could only confuse patients with phases


def test_mixed_model_against_statsmodels():
    from statsmodels.regression.mixed_linear_model import MixedLM

    fields = table(cohort(seed=3)).drop(index=[0, 1, 7, 22])
    side = (fields["phase"] == "POST").astype(float)
    effect, se, ratios = staining.mixed_effect(fields["value"], side, fields["sample"], fields["patient"])
    model = MixedLM.from_formula("value ~ side", fields.assign(side=side), groups=fields["patient"]).fit(reml=True)
    assert effect == pytest.approx(model.params["side"], abs=1e-4)
    assert se == pytest.approx(model.bse["side"], rel=1e-3)
    assert sum(ratios) == pytest.approx(float(model.cov_re.iloc[0, 0]) / model.scale, rel=0.01)


def test_mixed_model_of_pairs_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    groups = {}
    for i in range(5):
        level = rng.normal(0, 1)
        for phase, move in (("PRE", 0.0), ("POST", 0.8)):
            groups[f"P{i}", f"P{i}-{phase}", phase] = 5 + level + move + rng.normal(0, 0.3) + rng.normal(0, 0.2, 4)
    fields = table(groups)
    values = staining.sample_values(fields)
    tests = staining.all_tests(fields, values, PHASES)
    means = values.pivot(index="patient", columns="phase", values="value")
    t = stats.ttest_rel(means["POST"], means["PRE"])
    mixed = tests[tests["test"] == staining.MIXED].iloc[0]
    assert mixed["statistic"] == pytest.approx(t.statistic, rel=1e-3)
    assert mixed["p_value"] == pytest.approx(t.pvalue, rel=5e-3)
    assert mixed["df2"] == 4
    assert tests.iloc[0]["test"] == "signed_rank_exact"


@pytest.mark.parametrize(("sample_sd", "warned"), [(0.0, True), (1.0, False)])
def test_pairs_whose_samples_do_not_differ_are_told(sample_sd, warned):
    # patients differ much, which cancels within pairs; fields in equal patterns leave no variance between samples, or a large one
    pattern, groups = np.array([-0.9, -0.3, 0.3, 0.9]), {}
    for i, level in enumerate((1.0, 9.0, 4.0, 20.0)):
        for phase, sign in (("PRE", -1), ("POST", 1)):
            groups[f"P{i}", f"P{i}-{phase}", phase] = level + pattern + sample_sd * sign * (-1) ** i
    fields = table(groups)
    tests = staining.all_tests(fields, staining.sample_values(fields), PHASES)
    row = tests[tests["test"] == staining.MIXED].iloc[0]
    assert (row["status"] == keys.WARNING) is warned
    told = "samples of a patient do not differ beyond their fields: the model counts fields"
    assert row["reason"] == (told if warned else "")
    side = (fields["phase"] == "POST").astype(float)
    _, _, (samples, patients) = staining.mixed_effect(fields["value"], side, fields["sample"], fields["patient"])
    assert patients > 1
    assert samples == pytest.approx(0, abs=1e-9) if warned else samples > 1


def test_fields_carry_the_test_of_one_patient():
    fields = table(THREE)
    values = staining.sample_values(fields)
    tests = staining.all_tests(fields, values, PHASES)
    between = tests[tests["unit"] == "patient"]
    assert set(between["status"]) == {keys.NO_REPLICATES}
    assert between["p_value"].isna().all()
    assert set(tests.loc[tests["unit"] == "field", "evidence"]) == {keys.SINGLE_PATIENT}
    assert staining.all_tests(fields, values, PHASES, "patient")["unit"].eq("patient").all()
    alone = table({"PRE": [1, 2, 3]})
    tests = staining.all_tests(alone, staining.sample_values(alone), PHASES)
    assert set(tests["status"]) == {keys.NOT_ESTIMABLE}


def test_adjustment_over_markers():
    frames = [table(cohort(seed=s, shift=s), marker=f"M{s}") for s in range(3)]
    fields = pd.concat(frames, ignore_index=True)
    tests = staining.all_tests(fields, staining.sample_values(fields), PHASES)
    mine = tests[tests["test"] == "rank_sum_exact"]
    assert mine["p_adjusted"].tolist() == pytest.approx(comparison.adjust(mine["p_value"]).tolist())
    assert set(mine["adjust_method"]) == {"BH:markers"}


def test_concordance():
    fields = table(cohort(shift=-2.0), marker="HER2").assign(gene="ERBB2")
    tests = staining.all_tests(fields, staining.sample_values(fields), PHASES)
    rna = pd.DataFrame(
        [("ERBB2", "POST_vs_PRE", "patient", "mean", "rank_sum_exact", "B", "adc", 0.3, "replicated"),
         ("ERBB2", "POST_vs_PRE", "patient", "mean", "rank_sum_exact", "tumour", "adc", -0.5, "replicated"),
         ("ERBB2", "POST_vs_PRE", "patient", "mean", "dunn", "tumour", "adc", 9.0, "replicated")],
        columns=["gene", "contrast", "unit", "measure", "test", "cell_type", "panel", "effect", "evidence"],
    )  # fmt: skip
    (row,) = staining.concordance(tests, rna).to_dict("records")
    assert (row["sign_protein"], row["sign_rna"], row["agree"], row["cell_type"]) == ("down", "down", keys.YES, "tumour")
    (row,) = staining.concordance(tests, pd.DataFrame()).to_dict("records")
    assert (row["agree"], row["sign_rna"]) == ("", "")
    assert row["reason"] == "the transcript was not compared in this contrast"
    assert list(staining.concordance(tests.iloc[:0], rna)) == list(staining.CONCORDANCE_COLUMNS)


@pytest.mark.parametrize(
    ("marker", "gene"),
    [("HER2", "ERBB2"), ("Ki-67", "MKI67"), ("pd-l1", "CD274"), ("cst3", "cst3"), (" C1orf43", "C1orf43"), ("HLA-A", "HLA-A")],
)
def test_genes_of_markers(marker, gene):
    assert staining.gene_of(marker) == gene


def test_transcripts_are_found_without_regard_to_case():
    columns = ["gene", "contrast", "unit", "measure", "test", "cell_type", "panel", "effect", "evidence"]
    rest = ("POST_vs_PRE", "patient", "mean", "rank_sum_exact", "tumour", "own", 0.5, "replicated")
    rna = pd.DataFrame([("C1orf43", *rest), ("CST3", *rest)], columns=columns)
    for marker in ("C1orf43", "C1ORF43", "cst3"):
        fields = table(cohort(), marker=marker).assign(gene=staining.gene_of(marker))
        tests = staining.all_tests(fields, staining.sample_values(fields), PHASES)
        (row,) = staining.concordance(tests, rna).to_dict("records")
        assert (row["gene"], row["agree"]) == (marker, keys.YES)


def test_fields_of_a_table():
    text = "Patient;Sample;Phase;FOV;stain;value;cells\nP1;a;PRE;1;HER2;0.5;100\nP1;a;PRE;2;HER2;1;\nP1;b;POST;1;MHC;0;5\n"
    made, problems = staining.fields(parsed(text), ORDER)
    assert not problems
    assert made["kind"].tolist() == ["share"] * 3
    assert made["gene"].tolist() == ["ERBB2", "ERBB2", "MHC"]
    assert made["section"].tolist() == ["1"] * 3
    # fields without a name are told apart, whatever the order of the rows
    rows = ["P1,a,PRE,,,M,3,", "P1,a,PRE,,,M,1,", "P1,a,PRE,,,M,2,"]
    one, _ = staining.fields(parsed(HEAD + "\n".join(rows)), ORDER)
    two, _ = staining.fields(parsed(HEAD + "\n".join(rows[::-1])), ORDER)
    pd.testing.assert_frame_equal(one, two)


def test_percentages_below_one_are_no_shares():
    head = "patient,sample,phase,field,marker,value,kind\n"
    text = head + "P1,a,PRE,1,LOW,0.2,\nP1,b,POST,1,LOW,0.9,\nP1,a,PRE,1,M,45,\n"
    _, problems = staining.fields(parsed(text), ORDER)
    (line,) = long_table.lines_of(problems)
    assert line == (
        "fields.csv, row 2, column kind: marker LOW: empty, its values lie within 0 and 1, others of the table do not; expected"
        " one of share, percent, intensity. Write it: shares and percentages below 1 look the same."
    )
    made, problems = staining.fields(parsed(text.replace("0.2,", "0.2,percent")), ORDER)
    assert problems == []
    assert made.groupby("marker")["kind"].first().to_dict() == {"LOW": "percent", "M": "intensity"}
    # another table with larger values of another marker says nothing about this one, of the same marker it does
    shares = parsed(head + "P1,a,PRE,1,LOW,0.2,\nP1,b,POST,1,LOW,0.9,\n")
    for marker, n in (("M", 0), ("LOW", 1)):
        other = long_table.parse(head + f"P1,c,POST,1,{marker},45,\n", "other.csv", staining.ALIASES)
        _, problems = staining.fields(pd.concat([shares, other], ignore_index=True), ORDER)
        assert len(problems) == n
    assert problems[0][0] == "fields.csv"
    assert "those of another table do not" in problems[0][1].line()


def test_every_fault_of_fields_at_once():
    text = HEAD + (
        "P1,a,PRE,1,1,M,x,5\nP1,a,PSOT,1,2,M,1,5\nP2,b,PRE,1,1,M,1,-5\nP3,b,PRE,1,2,M,1,5\n,c,PRE,1,1,M,1,5\nP4,d,PRE,1,1,M,1,5\n"
        "P4,d,PRE,1,1,M,2,5\nP5,e,RES,1,1,M,2,5\n"
    )
    design = pd.DataFrame({"sample": ["e"], "patient": ["P5"], "phase": ["POST"]})
    _, problems = staining.fields(parsed(text), ORDER, design)
    told = str(long_table.told(problems, "the tables"))
    for part in (
        "row 2, column value: 'x'; expected a number",
        "row 3, column phase: 'PSOT' in 1 rows; expected PRE, RES, POST, PRE-R. Write POST",
        "sample a, column phase: PRE and PSOT; expected one phase per sample",
        "row 4, column n_cells: -5; expected 0 or above",
        "sample b, column patient: P2 and P3; expected one patient per sample",
        "row 6, column patient: empty",
        "row 8, sample d, column field: section 1, field 1, marker M stands in rows 7, 8",
        "sample e, column phase: RES; expected POST, as in the samplesheet",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ("P1,a,PRE,1,M,50,share\n", "value: marker M: 50; expected a share within 0 and 1. Write percent in the column kind"),
        ("P1,a,PRE,1,M,120,percent\n", "value: marker M: 120; expected a percent within 0 and 100. Correct the value"),
        ("P1,a,PRE,1,M,1,area\n", "kind: marker M: area; expected one of share, percent, intensity per marker"),
        ("P1,a,PRE,1,M,1,share\nP1,a,PRE,2,M,1,percent\n", "kind: marker M: percent, share; expected one of"),
    ],
)
def test_kinds(rows, part):
    _, problems = staining.fields(parsed("patient,sample,phase,field,marker,value,kind\n" + rows), ORDER)
    assert part in str(long_table.told(problems, "the tables"))
    _, problems = staining.fields(parsed("patient,sample,phase,valu\nP1,a,PRE,1\n"), ORDER)
    told = str(long_table.told(problems, "the tables"))
    assert "column marker: no such column" in told
    assert "Rename valu to value" in told


def test_fields_of_several_files(tmp_path):
    (tmp_path / "a.csv").write_text("patient,sample,phase,marker,value\nP1,S1,PRE,M,0.5\n")
    (tmp_path / "b.csv").write_text("patient,sample,phase,marker,value\nP1,S2,POST,M,0.25\n")
    phases = pd.DataFrame({"phase": ["POST", "PRE"], "order": [2, 1]})
    made, table, problems = staining.read_fields([tmp_path / "b.csv", tmp_path / "a.csv"], phases, None)
    assert problems == []
    assert made["value"].tolist() == [0.5, 0.25]
    assert table["sample"].tolist() == ["S1", "S2"]
    _, _, problems = staining.read_fields([tmp_path / "a.csv"], phases.iloc[:1], None)
    assert problems[0][1].expected == "POST"
    assert staining.read_fields([], phases, None)[0].empty
