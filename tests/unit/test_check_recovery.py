"""CHECK_RECOVERY through its command line, on the truth of a small simulated cohort and answers made from it."""

from __future__ import annotations

import contextlib
import importlib.util
import io as std_io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scresist.io import InputError

SPEC = importlib.util.spec_from_file_location("check_recovery", Path(__file__).resolve().parents[2] / "bin" / "check_recovery.py")
SCRIPT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SCRIPT)
COLUMNS = ["what", "planted", "recovered", "metric", "value", "floor", "passed", "n", "explanation"]


@pytest.fixture(scope="module")
def truth(run_script, root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    design = folder / "design.csv"
    rows = ["A,P1,PRE,x,220,", "A2,P1,POST,x,220,", "B,P2,POST,y,220,quiet", "C,P3,POST,y,20,", "D,P4,PRE-R,y,220,"]
    rows += ["E,P5,RES,y,220,none"]
    design.write_text("sample,patient,phase,batch,n_cells,tumour\n" + "\n".join(rows) + "\n")
    assets = root / "assets"
    tables = ("--positions", assets / "gene_positions.tsv.gz", "--arms", assets / "arms.tsv", "--markers", assets / "markers.tsv")
    tables += ("--cell_cycle", assets / "cell_cycle.tsv")
    # by this seed P1 has two clones that change places, P4 one
    run_script("simulate_cohort", *tables, "--design", design, "--n_genes", 2500, "--seed", 1, cwd=folder)
    return folder / "truth"


@pytest.fixture
def perfect(truth) -> pd.DataFrame:
    """What a pipeline without fault would say."""
    planted = pd.read_parquet(truth / "cells.parquet")
    skipped = planted["sample"] == "C"
    kept = ~(skipped | planted["is_doublet"] | planted["is_poor"])
    epithelial = kept & (planted["lineage"] == "epithelial")
    call = np.where(planted["is_malignant"], "malignant", "non_malignant")
    call = np.where(planted["patient"].isin(["P2", "P5"]), "unresolved", call)
    with_clone = kept & planted["is_malignant"] & (planted["patient"] != "P2")
    reason = np.where(kept, "", np.where(planted["is_doublet"], "doublet", "low_counts"))
    return pd.DataFrame(
        {
            "cell": planted["cell"],
            "kept": kept,
            "drop_reason": np.where(skipped, "sample_skipped", reason),
            "doublet_score": np.where(skipped, np.nan, planted["is_doublet"].astype(float)),
            "main_type": planted["main_type"].where(kept),
            "subtype": planted["subtype"].where(kept),
            "cluster": planted["subtype"].where(kept),
            "malignant": pd.Series(call).where(epithelial),
            "clone": planted["clone"].str.upper().where(with_clone),
            "cytotrace": 1 - planted["path_time"],
        }
    )


@pytest.fixture
def tables(truth, perfect, tmp_path) -> Path:
    """The tables of such a pipeline."""
    folder = tmp_path / "tables"
    folder.mkdir()

    def write(frame: pd.DataFrame, name: str) -> None:
        frame.to_csv(folder / name, sep="\t", index=False)

    def planted(name: str) -> pd.DataFrame:
        return pd.read_csv(truth / f"{name}.tsv", sep="\t")

    for name in ("P2", "P5"):
        write(pd.DataFrame({"patient": [name], "status": ["cnv_quiet"]}), f"{name}.malignant.tsv")
    clones = planted("clones").assign(clone=lambda t: t["clone"].str.upper())
    for patient, own in clones.groupby("patient"):
        low, high = (own["expected_share"] + 0.1 * sign for sign in (-1, 1))
        write(own.assign(N=100, ci_low=low.clip(0), ci_high=high.clip(upper=1)), f"{patient}.clone_phases.tsv")
    changes = planted("clone_changes").assign(clone=lambda t: t["clone"].str.upper())
    changes = changes[changes["contrast"] == "POST_vs_PRE"].rename(columns={"expected_class": "class"})
    write(changes, "P1.clone_changes.tsv")
    genes = planted("expression")
    evidence = {"POST_vs_PRE": "replicated", "PRE-R_vs_PRE": "limited"}
    for contrast, own in genes.groupby("contrast"):
        if contrast in evidence:
            write(
                own.assign(cell_type="tumour", p_adjusted=1e-9, evidence=evidence[contrast]), f"{contrast}.de_pseudobulk.tsv.gz"
            )
    modules = planted("modules")
    write(modules.assign(module=modules["module"].map({"primary": "M1", "acquired": "M2"})), "modules.tsv")
    traits = [("M1", "primary_resistance", 0.8), ("M1", "acquired_resistance", -0.1), ("M2", "acquired_resistance", -0.9)]
    write(pd.DataFrame(traits, columns=["module", "trait", "rho"]).assign(level="sample"), "module_traits.tsv")
    write(planted("marker").assign(matched="yes", unit="cell"), "MUC3A.marker_de.tsv.gz")
    panels = planted("panels")
    panels = panels[panels["contrast"].isin(["POST_vs_PRE", "PRE-R_vs_PRE"])]
    value = (panels["direction"] == "up").astype(float)
    a, b = panels["contrast"].str.split("_vs_").str[0], panels["contrast"].str.split("_vs_").str[1]
    sides = [panels.assign(patient="P1", phase=phase, mean=mean) for phase, mean in ((a, value), (b, 1 - value))]
    write(pd.concat(sides).drop_duplicates(["gene", "cell_type", "phase"]), "panel_values.tsv")
    changed = planted("shares")
    changed = changed[changed["contrast"] == "POST_vs_PRE"].rename(columns={"main_type": "cell_type"})
    p = np.where(changed["log_ratio"].abs() > 0.4, 1e-3, 0.5)
    tests = changed.assign(level="main_type", denominator="all", method="propeller_logit", evidence="replicated", p_adjusted=p)
    write(tests.assign(effect=changed["log_ratio"]), "composition_tests.tsv")
    signals = planted("signals")
    signals = signals[signals["contrast"].isin(["POST_vs_PRE", "RES_vs_PRE"])].copy()
    signals["rank"] = signals.groupby("contrast").cumcount() + 1
    signals["flow_a"] = (signals["direction"] == "up").astype(float)
    signals["flow_b"] = 1 - signals["flow_a"]
    other = pd.DataFrame({"contrast": ["POST_vs_PRE", "RES_vs_PRE"], "pathway": "WNT", "rank": 9, "flow_a": 1, "flow_b": 1})
    write(pd.concat([signals, other]), "ranknet.tsv")
    links = [("A", "B", "Endothelial", "TGFb", "TGFB1", "TGFBR1_TGFBR2"), ("E", "B", "B", "WNT", "WNT5A", "FZD5")]
    write(pd.DataFrame(links, columns=["sample", "source", "target", "pathway", "ligand", "receptor"]), "A.lr_prob.tsv.gz")
    groups = pd.DataFrame([("E", "Mast", "false"), ("E", "B", "true")], columns=["sample", "cell_type", "estimable"])
    write(groups, "E.comm_groups.tsv")
    fate = {"patient": "P1", "measure": "direction", "phase_from": "PRE", "phase_to": "POST", "group": "cytotrace"}
    made = [{**fate, "control": "data", "value": -0.2, "p_adjusted": 0.01}]
    made += [{**fate, "control": "permuted_labels", "value": 0.1, "p_adjusted": 0.6}]
    write(pd.DataFrame(made), "P1.fate_tests.tsv")
    ratios = planted("survival").assign(kind="gene", model="univariate", per="sd", hr=lambda t: t["hazard_ratio"] + 0.1)
    write(ratios.assign(ci_low=ratios["hr"] - 0.2, ci_high=ratios["hr"] + 0.2), "bulk.cox.tsv")
    curves = planted("dose_response")
    reached = curves["reaches_half"] == "yes"
    fits = curves.assign(replicate="all", ic50_kind="absolute", ic50_text=np.where(reached, "5", "> 12500"))
    write(fits.assign(status=np.where(reached, "ok", "out_of_range")), "dose_fits.tsv")
    stains = planted("staining")
    stains = stains[stains["phase"] == "POST"].assign(contrast="POST_vs_PRE", unit="patient", test="rank_sum_exact")
    moved = stains["direction"].map({"up": 0.3, "down": -0.3, "none": 0.0})
    write(stains.assign(effect=moved, p_value=0.2, p_adjusted=0.2), "staining_tests.tsv")
    write(
        planted("routes").assign(word=lambda t: t["planted"].map({"yes": "supported", "no": "not supported"})), "route_card.tsv"
    )
    divided = {"patient": ["P1"], "contrast": ["POST_vs_PRE"], "score": ["CST3"], "total": [0.5], "residual": [1e-12]}
    write(pd.DataFrame(divided), "decomposition.tsv")
    return folder


def check(run_script, truth, cells, folder, *more, expect=0, inside=True):
    """Run the script on `cells`; within this process unless told otherwise: starting Python takes longer than the work."""
    cells.to_parquet(folder / "cells.parquet")
    options = ("--cells", "cells.parquet", "--truth", truth, *more)
    if not inside:
        done = run_script("check_recovery", *options, cwd=folder, check=False)
        assert done.returncode == expect, done.stderr
        return done
    out, error, code = std_io.StringIO(), "", 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        try:
            code = SCRIPT.main([str(option) for option in options])
        except InputError as problem:
            error, code = str(problem), 65
    assert code == expect, error
    return SimpleNamespace(stdout=out.getvalue(), stderr=error)


def test_a_faultless_answer_passes_every_floor(run_script, truth, perfect, tmp_path):
    done = check(run_script, truth, perfect, tmp_path, "--strict", inside=False)
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t")
    assert list(table.columns) == COLUMNS
    values = table.set_index("what")["value"]
    for name in ("main_types", "subtypes", "doublets", "poor_cells", "good_cells", "samples", "proportions", "batches_mix"):
        assert values[name] == pytest.approx(1), name
    assert values["unresolved"] == 0
    assert values["proportions_difference"] == pytest.approx(0, abs=1e-9)
    assert set(table["passed"].dropna()) == {True}
    assert done.stdout.startswith("Recovery: 15 of 15 floors reached; main types 1.000")
    assert len(done.stdout.splitlines()) == 1
    status = pd.read_csv(tmp_path / "check_recovery.cohort.status.tsv", sep="\t")
    assert status.loc[0, "status"] == "ok"
    assert (tmp_path / "check_recovery.cohort.provenance.json").exists()


def test_a_faultless_answer_with_tables_passes_every_floor(run_script, truth, perfect, tables, tmp_path):
    check(run_script, truth, perfect, tmp_path, "--tables", "tables", "--strict", inside=False)
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    assert set(table["passed"].dropna()) == {True}
    routes = pd.read_csv(truth / "routes.tsv", sep="\t")
    unplanted = [] if (routes["planted"] == "no").any() else ["routes_false"]
    assert list(table.index[table["recovered"] == "not_estimable"]) == unplanted
    figures = ("malignant", "cnv_quiet", "clones", "clones_median", "one_clone_tumours", "clone_shares", "clone_changes")
    figures += ("genes_recall", "modules", "module_traits", "marker_genes", "panels", "shares_found", "signals", "signals_first")
    figures += (
        "absent_types",
        "path_order",
        "path_direction",
        "path_control",
        "hazard_ratio",
        "incomplete_curves",
        "staining",
        "routes",
    )
    assert (table.loc[list(figures), "value"] == 1).all()
    assert (table.loc[["genes_fdr", "shares_false", "ic50", "staining_flat"], "value"] == 0).all()
    assert table.loc["decomposition", "value"] == 1e-12
    assert (
        "Not judged, fewer than 3 patients a side: PRE-R_vs_PRE, recall 1.000, fdr 0.000."
        in table.loc["genes_recall", "explanation"]
    )


def test_what_was_switched_off_is_not_estimable(run_script, truth, perfect, tmp_path):
    check(run_script, truth, perfect.drop(columns=["malignant", "clone", "cytotrace"]), tmp_path, "--strict")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    rows = table.loc["malignant":]
    assert len(rows) == 29
    assert (rows["recovered"] == "not_estimable").all()
    assert rows["value"].isna().all() and rows["passed"].isna().all()
    assert rows.loc["malignant", "explanation"] == "cells.parquet has no column malignant: CALL_MALIGNANT was switched off."
    # empty tables of a step that could not work are no better
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "P1.clone_changes.tsv").write_text("patient\tclone\tcontrast\tclass\n")
    check(run_script, truth, perfect, tmp_path, "--tables", "tables", "--strict")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    assert table.loc["clone_changes", "recovered"] == "not_estimable"
    assert table.loc["clones", "value"] == 1


def test_wrong_tumour_results_are_missed_and_named(run_script, truth, perfect, tables, tmp_path):
    half = perfect["cell"].str[-3].isin(["A", "C"])
    wrong = perfect.assign(
        malignant=perfect["malignant"].where(~((perfect["malignant"] == "malignant") & half), "non_malignant"),
        clone=perfect["clone"].where(perfect["clone"].isna() | ~half, "P1.Z"),
    )
    path = tables / "P1.clone_changes.tsv"
    pd.read_csv(path, sep="\t").assign(**{"class": "uncertain"}).to_csv(path, sep="\t", index=False)
    path = tables / "POST_vs_PRE.de_pseudobulk.tsv.gz"
    genes = pd.read_csv(path, sep="\t").assign(gene=lambda t: t["gene"] + "x")
    pd.concat([genes, pd.read_csv(path, sep="\t").assign(p_adjusted=0.5)]).to_csv(path, sep="\t", index=False)
    check(run_script, truth, wrong, tmp_path, "--tables", "tables")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    for name in ("malignant", "clones", "clone_changes", "genes_recall", "genes_fdr"):
        assert table.loc[name, "passed"] in (False, "False", "false"), name
    assert "P1.a POST_vs_PRE: uncertain, planted" in table.loc["clone_changes", "explanation"]
    assert table.loc["genes_fdr", "value"] == 1
    assert "POST_vs_PRE 0.000" in table.loc["genes_recall", "explanation"]


def test_tables_that_lack_columns_are_refused(run_script, truth, perfect, tables, tmp_path):
    (tables / "P9.clone_phases.tsv").write_text("patient\tclone\nP9\tP9.A\n")
    done = check(run_script, truth, perfect, tmp_path, "--tables", "tables", expect=65)
    assert "P9.clone_phases.tsv: columns phase, N, ci_low, ci_high are missing; found patient, clone" in done.stderr


def test_the_order_of_the_cells_changes_nothing(run_script, truth, perfect, tmp_path):
    check(run_script, truth, perfect, tmp_path)
    before = (tmp_path / "recovery.tsv").read_bytes()
    check(run_script, truth, perfect.sample(frac=1, random_state=0), tmp_path)
    assert (tmp_path / "recovery.tsv").read_bytes() == before


def test_missed_floors_are_named_and_stop_a_strict_run(run_script, truth, perfect, tmp_path):
    wrong = perfect.assign(main_type=np.where(perfect["kept"], "B", None), doublet_score=0.1)
    done = check(run_script, truth, wrong, tmp_path)
    assert "main_types: accuracy is" in done.stdout
    status = pd.read_csv(tmp_path / "check_recovery.cohort.status.tsv", sep="\t")
    assert status.loc[0, "status"] == "warning"
    assert "doublets: auroc is 0.5, needed 0.9" in status.loc[0, "reason"]
    done = check(run_script, truth, wrong, tmp_path, "--strict", expect=65)
    assert "floors are missed" in done.stderr
    assert (tmp_path / "recovery.tsv").exists()


def test_floors_can_be_set(run_script, truth, perfect, tmp_path):
    unresolved = perfect.assign(main_type=np.where(perfect["kept"], "unresolved", None))
    check(run_script, truth, unresolved, tmp_path, "--floors", "main_types=0")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    assert table.loc["main_types", "value"] == 0
    assert bool(table.loc["main_types", "passed"])
    assert table.loc["unresolved", "value"] == 1
    # no cell has a type: the shares do not exist and count as missed
    assert np.isnan(table.loc["proportions", "value"])
    assert table.loc["proportions", "passed"] in (False, "false")
    done = run_script("check_recovery", "--cells", "x", "--truth", "y", "--floors", "nothing=1", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "'nothing' is not one of main_types" in done.stderr


def test_bad_input_is_refused(run_script, truth, perfect, tmp_path):
    done = check(run_script, truth, perfect.drop(columns=["main_type", "kept"]), tmp_path, expect=65)
    assert "cells.parquet: columns kept, main_type are missing" in done.stderr
    done = check(run_script, truth, perfect.iloc[5:], tmp_path, expect=65, inside=False)
    assert f"5 of {len(perfect)} planted droplets have no row, the first is A:" in done.stderr
    done = check(run_script, tmp_path / "none", perfect, tmp_path, expect=65)
    assert "samples.tsv" in done.stderr and "not found" in done.stderr
    assert not (tmp_path / "recovery.tsv").exists()


def test_wrong_microenvironment_results_are_missed_and_named(run_script, truth, perfect, tables, tmp_path):
    def change(name, **columns):
        path = tables / name
        pd.read_csv(path, sep="\t").assign(**columns).to_csv(path, sep="\t", index=False)

    change("composition_tests.tsv", p_adjusted=0.01, effect=1.0)  # everything called, B and CD8_T with the wrong sign
    change("ranknet.tsv", rank=lambda t: 10 - t["rank"], flow_a=1.0, flow_b=2.0)
    change("E.comm_groups.tsv", estimable="true")
    change("P1.fate_tests.tsv", p_adjusted=0.01, value=0.2)
    check(run_script, truth, perfect, tmp_path, "--tables", "tables")
    table = pd.read_csv(tmp_path / "recovery.tsv", sep="\t").set_index("what")
    missed = ["shares_found", "shares_false", "signals", "signals_first", "absent_types", "path_direction", "path_control"]
    assert (table.loc[missed, "passed"].astype(str).str.lower() == "false").all()
    assert table.loc["shares_false", "value"] == 8
    assert "not called: B POST_vs_PRE, CD8_T POST_vs_PRE." in table.loc["shares_found", "explanation"]
    assert "TGFb POST_vs_PRE: WNT" in table.loc["signals_first", "explanation"]
    assert "wrong: Mast E." in table.loc["absent_types", "explanation"]
    assert table.loc["path_control", "explanation"].endswith("wrong: P1 PRE to POST.")
