"""Chapter of the report: dose-response curves in cell lines, their IC50 and what differs between treatments."""

from __future__ import annotations

import pandas as pd

from scresist import keys, report
from scresist.layout import Chapter, Context, Section, empty, items, picture
from scresist.report import Col, count, listing

FOLDER = "05_evidence/dose_response"
STEP = "fit_dose_response"
POOLED = "all"  # of the column replicate: the fit over all wells
ALPHA = 0.05
OUT_OF_RANGE = keys.OUT_OF_RANGE
MAX_PICTURES = 12
MAX_LINES = 6


def dose_response(context: Context) -> Chapter:
    """Curves, IC50 of each, tests between treatments and lines, fits of single replicates."""
    fits = context.tables.get("dose_fits")
    title = "Dose-response"
    head = (
        "<p>Cells in a dish are treated with rising doses; the IC50 is the dose that leaves half of the growth of untreated"
        " cells. A lower IC50 means a more sensitive cell line. If a curve never reaches half effect, no IC50 exists within the"
        " tested doses, and none is given. A cell line is not a patient: this supports or weakens a finding in tissue, it does"
        " not replace it.</p>"
    )
    if fits.empty:
        why = empty("No curves: " + context.why(STEP))
        return Chapter("sc_dose_response", title, head, [Section("sc_dose_response_curves", "Curves", "Not available.", why)])
    tests = context.tables.get("dose_tests")
    sections = [_curves(context), _fits(context, fits), _tests(context, tests), _replicates(context, fits)]
    return Chapter("sc_dose_response", title, head + items(_lines(fits, tests)), sections)


def _lines(fits: pd.DataFrame, tests: pd.DataFrame) -> list[str]:
    """What the curves and tests say, in sentences."""
    pooled = fits[fits["replicate"] == POOLED]
    known = pooled[[not report.is_missing(value) for value in pooled["ic50"]]]
    said = [f"{len(known)} of {count(len(pooled), 'curve')} have an IC50 within the tested doses."]
    beyond = pooled[pooled["status"] == OUT_OF_RANGE]
    if len(beyond):
        named = [f"{row['curve']} ({row['ic50_text']} {row['unit']})" for row in beyond.to_dict("records")]
        said.append(f"Not reached within the doses: {listing(named, MAX_LINES)}.")
    none = pooled[pooled["status"] == keys.NOT_ESTIMABLE]
    if len(none):
        said.append(f"No IC50 can be given, not even a limit: {listing(none['curve'].tolist(), MAX_LINES)}.")
    if len(tests):
        whole = pd.to_numeric(tests.loc[tests["test"] == "anova", "p_adjusted"], errors="coerce").dropna()
        if len(whole):
            differ = f"{int((whole < ALPHA).sum())} of {count(len(whole), 'comparison')} of treatments or lines"
            said.append(f"IC50s of replicates differ in {differ} (analysis of variance, adjusted p below {ALPHA}).")
        else:
            said.append("No comparison has replicates enough for a test between them.")
        pairs = tests[tests["test"] == "tukey_hsd"].assign(p=lambda f: pd.to_numeric(f["p_adjusted"], errors="coerce"))
        low = pairs[pairs["p"] < ALPHA].sort_values(["p", "contrast"], kind="stable")
        for row in low[low["comparison"] == "treatments"].head(MAX_LINES).to_dict("records"):
            fold = report.number(row["fold_change"])
            text = row["contrast"].replace("_vs_", f" is {fold} times that of ", 1)
            limits = f"95 % {report.number(row['fold_low'])} to {report.number(row['fold_high'])}"
            said.append(f"{row['line']}, {row['compound']}: IC50 of {text} ({limits}).")
    return said


def _curves(context: Context) -> Section:
    pictures = context.tables.pictures("dose_response")
    shown = list(pictures.items())[:MAX_PICTURES]
    body = "".join(picture(content, f"Dose-response curves of {name}") for name, content in shown)
    if len(pictures) > len(shown):
        body += empty(f"{len(shown)} of {len(pictures)} compounds are shown; all pictures lie in {FOLDER}.")
    return Section(
        "sc_dose_response_curves",
        "Curves",
        "One picture per compound, one panel per cell line. Circles: wells. Line: fitted curve with its pointwise 95 % band."
        " Diamond: IC50. Dotted line: half of the untreated response. Doses stand on a log axis; dose 0 is drawn left of it. A"
        " rise or fall at the last doses only may come from the solvent.",
        body or empty("No picture was drawn: " + context.why(STEP)),
    )


FIT_COLS = [
    Col("line", "line"),
    Col("treatment", "treatment"),
    Col("compound", "compound"),
    Col("ic50_text", "IC50", help="dose that leaves 50 % (absolute) or half of the curve's own span (relative)"),
    Col("unit", "unit"),
    Col("ic50_low", "95 % from", "num", "profile likelihood; ∞: the data set no limit"),
    Col("ic50_high", "to", "num"),
    Col("model", "model", help="free: four parameters; top_100, bottom_0: a plateau that the data do not determine was fixed"),
    Col("hill", "hill", "num", "steepness; larger is steeper", 2),
    Col("bottom", "bottom", "num", "response at full effect", 1),
    Col("auc", "AUC", "num", "mean response over log dose; 1 = no effect on the percent scale", 2),
    Col("r2", "R²", "num", "", 2),
    Col("n", "wells", "int"),
    Col("n_replicates", "replicates", "int"),
    Col("status", "status", "status"),
    Col("reason", "note"),
]


def _fits(context: Context, fits: pd.DataFrame) -> Section:
    pooled = fits[fits["replicate"] == POOLED]
    return Section(
        "sc_dose_response_fits",
        "IC50 of each curve",
        "Fit over all wells of a curve. `> 12500` means that the curve does not reach half effect up to 12,500: the true value"
        " is higher or does not exist. A wide interval says that the doses do not bracket the IC50 well.",
        report.table(pooled, FIT_COLS, f"{FOLDER}/dose_fits.tsv", context.max_rows, context.why(STEP)),
    )


TEST_COLS = [
    Col("comparison", "compared"),
    Col("line", "line"),
    Col("treatment", "treatment"),
    Col("compound", "compound"),
    Col("contrast", "contrast"),
    Col("unit", "unit", help="replicate: one IC50 per replicate; well: every well counts, which overstates certainty"),
    Col("n_a", "n of the first", "int", help="replicates with an IC50, or wells: see unit"),
    Col("n_b", "n of the second", "int"),
    Col("test", "test"),
    Col("df1", "df 1", "int"),
    Col("df2", "df 2", "int"),
    Col("fold_change", "fold", "num", "IC50 of the first over the second"),
    Col("fold_low", "95 % from", "num"),
    Col("fold_high", "to", "num"),
    Col("p_value", "p", "p"),
    Col("p_adjusted", "adjusted p", "p"),
    Col("status", "status", "status"),
    Col("reason", "note"),
]


def _tests(context: Context, tests: pd.DataFrame) -> Section:
    if len(tests):
        tests = tests.assign(test=tests["test"].str.replace("_", " "))
    return Section(
        "sc_dose_response_tests",
        "Differences between treatments and lines",
        "Analysis of variance on log10 IC50 of the replicates with Tukey's pairs, and an F test of one shared IC50 over wells."
        " Replicates without an IC50 take no part, so that a resistant line beyond the doses leaves the test: read its note."
        " Wells of one plate are no biological replicates: without replicates a row with unit well gives the difference"
        " of the fits and its interval over wells, without p. Adjusted p: over all comparisons; of pairs, never below that of"
        " the comparison they belong to. Of more than 20 groups no pairs are tested.",
        report.table(tests, TEST_COLS, f"{FOLDER}/dose_tests.tsv", context.max_rows, "nothing to compare"),
    )


def _replicates(context: Context, fits: pd.DataFrame) -> Section:
    single = fits[fits["replicate"] != POOLED]
    columns = [FIT_COLS[0], FIT_COLS[1], FIT_COLS[2], Col("replicate", "replicate"), *FIT_COLS[3:9], *FIT_COLS[-2:]]
    return Section(
        "sc_dose_response_replicates",
        "Fits of single replicates",
        "The values that the analysis of variance compares.",
        report.table(single, columns, f"{FOLDER}/dose_fits.tsv", context.max_rows, "no curve has two replicates"),
    )
