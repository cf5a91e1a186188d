"""What each per-cell column means and which step made it: the source of columns.tsv, beside the names in keys.py."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scresist import keys


@dataclass(frozen=True)
class Column:
    """Origin and meaning of one per-cell column, for a reader who has not seen the code."""

    step: str
    meaning: str


_LOAD, _FLAG, _DOUBLETS = "load_sample", "flag_cells", "detect_doublets"
_CNV, _MALIGNANT, _CLONES, _EPITHELIUM = "infer_cnv", "call_malignant", "trace_clones", "subcluster_epithelium"
_PROGRAMS = "find_programs"
_TCELLS = "score_tcells"
_FATES = "map_fates"
_FILTER, _CLUSTER, _ANNOTATE = "filter_cells", "cluster_cohort", "annotate_cells"

COLUMNS: dict[str, Column] = {
    keys.CELL: Column(_LOAD, "Cell id, `<sample>:<barcode>`; the key of every per-cell file."),
    keys.SAMPLE: Column(_LOAD, "Sample id from the samplesheet."),
    keys.PATIENT: Column(_LOAD, "Patient id from the samplesheet; the unit of replication."),
    keys.PHASE: Column(_LOAD, "Phase of therapy of the sample (phases.tsv)."),
    keys.BATCH: Column(_LOAD, "Batch from the samplesheet; `none` where no batch was given."),
    keys.N_COUNTS: Column(_FLAG, "UMI counts of the cell."),
    keys.N_GENES: Column(_FLAG, "Genes with at least one count."),
    keys.PCT_MT: Column(_FLAG, "Counts from mitochondrial genes, in % of the cell's counts."),
    keys.PCT_RIBO: Column(_FLAG, "Counts from ribosomal protein genes, in %."),
    keys.PCT_HB: Column(_FLAG, "Counts from haemoglobin genes, in %."),
    keys.PCT_TOP20: Column(_FLAG, "Counts in the 20 strongest genes of the cell, in %."),
    keys.FLAG_LOW_GENES: Column(_FLAG, "Fewer genes than the sample's min_genes."),
    keys.FLAG_LOW_COUNTS: Column(_FLAG, "Fewer counts than the sample's min_counts."),
    keys.FLAG_HIGH_MT: Column(_FLAG, "More mitochondrial counts than max_mt_pct."),
    keys.FLAG_MAD_COUNTS: Column(_FLAG, "Counts (log1p) further than mad_k scaled MAD from the sample's median."),
    keys.FLAG_MAD_GENES: Column(_FLAG, "Genes (log1p) further than mad_k scaled MAD from the sample's median."),
    keys.FLAG_MAD_TOP20: Column(_FLAG, "Share of the top 20 genes further than mad_k scaled MAD from the sample's median."),
    keys.FLAG_MAD_MT: Column(_FLAG, "Mitochondrial share above the sample's median by mad_k_mt scaled MAD and above the floor."),
    keys.FLAG_ANY: Column(_FLAG, "Flagged as a poor cell by at least one rule."),
    keys.DOUBLET_SCORE: Column(_DOUBLETS, "Scrublet score, 0 to 1: likeness to simulated doublets."),
    keys.DOUBLET_CALL: Column(_DOUBLETS, "Called a doublet by its score (rule a)."),
    keys.OVER_CLUSTER: Column(_DOUBLETS, "Fine cluster within the sample, used by the doublet rules only."),
    keys.CLUSTER_MEAN_SCORE: Column(_DOUBLETS, "Mean doublet score of the cell's fine cluster."),
    keys.CLUSTER_FLAG_SCORE: Column(_DOUBLETS, "The fine cluster's mean score lies above the limit (rule b)."),
    keys.LINEAGE_PAIR: Column(_DOUBLETS, "Two lineages whose markers the cell expresses together; empty when there are none."),
    keys.CLUSTER_FLAG_LINEAGE: Column(_DOUBLETS, "Enough cells of the fine cluster express the same two lineages (rule c)."),
    keys.DOUBLET: Column(_DOUBLETS, "Treated as a doublet by one of the rules in use."),
    keys.KEPT: Column(_FILTER, "The cell is in the cohort (cohort.h5ad holds these cells only)."),
    keys.DROP_REASON: Column(_FILTER, "First reason for leaving the cell out, in the order of the rules; empty when kept."),
    keys.UMAP[0]: Column(_CLUSTER, "First UMAP coordinate (for pictures; distances between groups mean nothing)."),
    keys.UMAP[1]: Column(_CLUSTER, "Second UMAP coordinate."),
    keys.CLUSTER: Column(
        _CLUSTER,
        "Leiden cluster at the primary resolution, or as given in an annotated object; numbers may differ between machines.",
    ),
    keys.MAIN_TYPE: Column(
        _ANNOTATE,
        "Main cell type agreed by markers and models, or given in an annotated object; `unresolved` where there is none.",
    ),
    keys.SUBTYPE: Column(_ANNOTATE, "Subtype within the main type, where a source offers one."),
    keys.LINEAGE: Column(_ANNOTATE, "Lineage: epithelial, immune or stromal."),
    keys.TYPE_STATUS: Column(_ANNOTATE, "How the type came about: ok, or why it stayed unresolved."),
    keys.ANNOTATION_CONFIDENCE: Column(_ANNOTATE, "Support of the main type among all sources, 0 to 1."),
    keys.MARKER_TYPE: Column(_ANNOTATE, "Main type by the marker table alone."),
    keys.MARKER_SCORE: Column(_ANNOTATE, "Share of that type's markers found in the cell's cluster, 0 to 1."),
    keys.CNV_ROLE: Column(_CNV, "Part of the cell in the copy-number step: reference or query (epithelial)."),
    keys.CNV_SCORE_SUM: Column(_CNV, "Copy-number score: sum of squares of the profile over genes (log2 ratio squared)."),
    keys.CNV_SCORE_MEAN: Column(_CNV, "The same divided by the number of genes."),
    keys.MALIGNANT: Column(_MALIGNANT, "Call for an epithelial cell: malignant, non_malignant or unresolved."),
    keys.MALIGNANT_BASIS: Column(_MALIGNANT, "What the call rests on."),
    keys.CNV_CLUSTER: Column(_MALIGNANT, "Cluster of the cell's profile among the epithelial cells of its patient."),
    keys.ARM_PROJECTION: Column(_MALIGNANT, "Largest projection of the cell's arm z-scores on tumour-like clusters."),
    keys.CNV_CORR: Column(_MALIGNANT, "Correlation of the cell's profile with the mean of the patient's top 10 % cells."),
    keys.QUOTA_TOP10: Column(_MALIGNANT, "Among the patient's highest scores (the study's rule); decides nothing."),
    keys.REFERENCE_CUT: Column(_MALIGNANT, "Score above the reference's mean plus a number of sd; decides nothing."),
    keys.TUMOUR: Column(_MALIGNANT, "The cell stands for the tumour in later steps."),
    keys.TUMOUR_BASIS: Column(_MALIGNANT, "Why: cnv (called malignant), epithelial (no call was possible), none."),
    keys.CLONE: Column(_CLONES, "Clone of a malignant cell, `<patient>.C1` the largest; not matched between patients."),
    keys.EPI_CLUSTER: Column(_EPITHELIUM, "Leiden cluster of the tumour cells among themselves."),
    keys.EPI_UMAP[0]: Column(_EPITHELIUM, "First UMAP coordinate of the tumour cells among themselves."),
    keys.EPI_UMAP[1]: Column(_EPITHELIUM, "Second UMAP coordinate of the tumour cells among themselves."),
    keys.S_SCORE: Column(_EPITHELIUM, "Score of S-phase genes of the cell cycle."),
    keys.G2M_SCORE: Column(_EPITHELIUM, "Score of G2/M-phase genes of the cell cycle."),
    keys.CYCLE_PHASE: Column(_EPITHELIUM, "Cell-cycle phase G1, S or G2M; not the phase of therapy."),
    keys.DIVIDING: Column(_EPITHELIUM, "The larger cycle score lies above that of random genes of like expression."),
    keys.TCELL_SCORES[0]: Column(_TCELLS, "Score of exhaustion in T and NK cells, against control genes; empty elsewhere."),
    keys.TCELL_SCORES[1]: Column(_TCELLS, "Score of the tools of killing in T and NK cells; empty elsewhere."),
    keys.TCELL_SCORES[2]: Column(_TCELLS, "Score of naive and memory-like T and NK cells; empty elsewhere."),
    keys.TCELL_SCORES[3]: Column(_TCELLS, "Score of regulatory T cells; empty elsewhere."),
    keys.CYTOTRACE: Column(_FATES, "CytoTRACE score among the patient's tumour cells: 1 early, 0 differentiated."),
    keys.PSEUDOTIME: Column(_FATES, "Diffusion pseudotime of the tumour cell, 0 to 1 from the earliest; order, not time."),
    keys.LATER_RESEMBLANCE: Column(_FATES, "Likeness to the last phase against the own phase, log2, within the clone."),
    keys.FATE: Column(_FATES, "Terminal state of the patient that the cell resembles most, `<patient>.F1` the largest."),
    keys.FATE_PROBABILITY: Column(_FATES, "Probability of that terminal state (CellRank); a resemblance, not a forecast."),
}

# Columns whose names hold a parameter or a model; `{0}` is what the pattern caught.
PATTERNS: tuple[tuple[re.Pattern[str], Column], ...] = (
    (re.compile(rf"^{keys.LEIDEN_PREFIX}(.+)$"), Column(_CLUSTER, "Leiden cluster at resolution {0}.")),
    (re.compile(rf"^{keys.MODULE_PREFIX}(M\d+)$"), Column(_PROGRAMS, "Score of the co-expression module {0} in the cell.")),
    (re.compile(r"^([a-z][a-z0-9_]*)_score$"), Column(_TCELLS, "Score of the state {0} in T and NK cells; empty elsewhere.")),
    (re.compile(r"^(.+)_label$"), Column(_ANNOTATE, "Label of the cell by the model {0}.")),
    (re.compile(r"^(.+)_conf$"), Column(_ANNOTATE, "Confidence of the model {0} in its label, 0 to 1.")),
    (re.compile(r"^(.+)_majority$"), Column(_ANNOTATE, "Label by the model {0} after the vote within fine clusters.")),
)


def describe(name: str) -> Column | None:
    """Origin and meaning of a column, or None for a column that nobody has described."""
    if name in COLUMNS:
        return COLUMNS[name]
    for pattern, column in PATTERNS:
        match = pattern.match(name)
        if match:
            return Column(column.step, column.meaning.format(match.group(1)))
    return None
