"""Every name that travels between steps, once: AnnData slots, fragment columns, status words.

A step imports its names from here, so that a renamed column is a renamed constant and nothing else.
"""

from __future__ import annotations

import re
from typing import Any

# Ids of samples, patients, phases, batches, contrasts: safe in file names, shells and HTML.
ID_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z")

# --- AnnData slots (the contract is in contract.py)
COUNTS = "counts"  # layer: raw counts, non-negative integers, CSR
COUNTS_RAW = "counts_raw"  # layer: counts before ambient correction, where that was done
UNS = "scresist"  # uns: one entry per step with version, parameters and seed
TARGET_SUM = 1e4  # X = log1p(counts / total * TARGET_SUM), from MERGE_COHORT on

# --- obs: identity
CELL = "cell"  # <sample>:<barcode>, the key of every fragment
SAMPLE = "sample"
PATIENT = "patient"
PHASE = "phase"
BATCH = "batch"
IDENTITY = (SAMPLE, PATIENT, PHASE, BATCH)

# --- var
GENE_ID = "gene_id"  # Ensembl id where known
CHROMOSOME = "chromosome"
START = "start"
END = "end"
IS_MT = "mt"
HIGHLY_VARIABLE = "highly_variable"

# --- FLAG_CELLS
N_COUNTS = "n_counts"
N_GENES = "n_genes"
PCT_MT = "pct_mt"
PCT_RIBO = "pct_ribo"
PCT_HB = "pct_hb"
PCT_TOP20 = "pct_top20"
FLAG_LOW_GENES = "flag_low_genes"
FLAG_LOW_COUNTS = "flag_low_counts"
FLAG_HIGH_MT = "flag_high_mt"
FLAG_MAD_COUNTS = "flag_mad_counts"
FLAG_MAD_GENES = "flag_mad_genes"
FLAG_MAD_TOP20 = "flag_mad_top20"
FLAG_MAD_MT = "flag_mad_mt"
FLAG_ANY = "flag_any"
QC_METRICS = (N_COUNTS, N_GENES, PCT_MT, PCT_RIBO, PCT_HB, PCT_TOP20)
QC_FLAGS = (
    FLAG_LOW_GENES,
    FLAG_LOW_COUNTS,
    FLAG_HIGH_MT,
    FLAG_MAD_COUNTS,
    FLAG_MAD_GENES,
    FLAG_MAD_TOP20,
    FLAG_MAD_MT,
    FLAG_ANY,
)

# --- DETECT_DOUBLETS
DOUBLET_SCORE = "doublet_score"
DOUBLET_CALL = "doublet_call"
OVER_CLUSTER = "over_cluster"
CLUSTER_MEAN_SCORE = "cluster_mean_score"
CLUSTER_FLAG_SCORE = "cluster_flag_score"
LINEAGE_PAIR = "lineage_pair"
CLUSTER_FLAG_LINEAGE = "cluster_flag_lineage"
DOUBLET = "doublet"
DOUBLET_COLUMNS = (
    DOUBLET_SCORE,
    DOUBLET_CALL,
    OVER_CLUSTER,
    CLUSTER_MEAN_SCORE,
    CLUSTER_FLAG_SCORE,
    LINEAGE_PAIR,
    CLUSTER_FLAG_LINEAGE,
    DOUBLET,
)

# --- FILTER_CELLS
KEPT = "kept"  # the cell is in the cohort
DROP_REASON = "drop_reason"  # first reason in the order of DROP_REASONS, "" when kept
DROP_REASONS = ("low_genes", "low_counts", "high_mt", "mad", "doublet", "sample_skipped")

# --- INTEGRATE_COHORT, CLUSTER_COHORT
LATENT_PREFIX = "latent_"  # latent_1 .. latent_k
UMAP = ("umap_1", "umap_2")
LEIDEN_PREFIX = "leiden_"  # leiden_<resolution>, e.g. leiden_1.0
CLUSTER = "cluster"  # the primary resolution

# --- ANNOTATE_CELLS
MAIN_TYPE = "main_type"
SUBTYPE = "subtype"
LINEAGE = "lineage"
TYPE_STATUS = "type_status"
ANNOTATION_CONFIDENCE = "annotation_confidence"
MARKER_TYPE = "marker_type"
MARKER_SCORE = "marker_score"
UNRESOLVED = "unresolved"
LINEAGES = ("epithelial", "immune", "stromal")

# --- INFER_CNV, CALL_MALIGNANT, TRACE_CLONES
CNV_SCORE_SUM = "cnv_score_sum"  # sum of squared profile values over genes (the study's score)
CNV_SCORE_MEAN = "cnv_score_mean"
CNV_ROLE = "cnv_role"  # reference, query (epithelial) or "" (neither)
CNV_ROLE_REFERENCE = "reference"
CNV_ROLE_QUERY = "query"
CNV_CORR = "cnv_corr"
MALIGNANT = "malignant"  # malignant, non_malignant, unresolved; missing for cells that are not epithelial
MALIGNANT_YES = "malignant"
MALIGNANT_NO = "non_malignant"
MALIGNANT_BASIS = "malignant_basis"
CNV_CLUSTER = "cnv_cluster"
ARM_PROJECTION = "arm_projection"
QUOTA_TOP10 = "quota_top10"
REFERENCE_CUT = "reference_cut"
TUMOUR = "tumour"  # the cell stands for the tumour in later steps; missing for cells that are not epithelial
TUMOUR_BASIS = "tumour_basis"  # why: cnv (called malignant), epithelial (no copy-number call was possible), none
CLONE = "clone"  # <patient>.C1 .. by size

# --- SUBCLUSTER_EPITHELIUM, FIND_PROGRAMS
EPI_CLUSTER = "epi_cluster"
EPI_UMAP = ("epi_umap_1", "epi_umap_2")
S_SCORE = "s_score"
G2M_SCORE = "g2m_score"
DIVIDING = "dividing"  # a cycle score beyond that of random genes
CYCLE_PHASE = "cycle_phase"  # G1, S, G2M; never `phase`, which is the phase of therapy
MODULE_PREFIX = "module_"  # module_M1 ..: score of a co-expression module

# --- TEST_COMPOSITION: the method that the first page and CHECK_RECOVERY quote. It is speckle's default; rank tests of three
# patients a side cannot reach 0.05.
SHARE_METHOD = "propeller_logit"

# --- SCORE_TCELLS, MAP_FATES
TCELL_SCORES = ("exhaustion_score", "cytotoxic_score", "naive_score", "regulatory_score")
CYTOTRACE = "cytotrace"  # 0 (differentiated) .. 1 (early)
PSEUDOTIME = "pseudotime"  # diffusion pseudotime of tumour cells within their patient
LATER_RESEMBLANCE = "later_resemblance"
FATE = "fate"  # <patient>.F1 ..: the terminal state a cell resembles most
FATE_PROBABILITY = "fate_probability"

# --- CHECK_DESIGN: what a phase stands for, how much a contrast can carry, what a question is answered with
ROLE_BASELINE = "baseline"
ROLE_RESPONSE = "response"
ROLE_PRIMARY = "primary_resistance"
ROLE_ACQUIRED = "acquired_resistance"
ROLE_OTHER = "other"
ROLES = (ROLE_BASELINE, ROLE_RESPONSE, ROLE_PRIMARY, ROLE_ACQUIRED, ROLE_OTHER)
REPLICATED = "replicated"  # >= 3 patients a side
LIMITED = "limited"  # 2 patients a side
SINGLE_PATIENT = "single_patient"
CELL_LEVEL = "cell_level"
NO_BATCH = "none"  # obs batch where the samplesheet gives none
YES = "yes"
EXPLORATORY = "exploratory"
NO = "no"

# --- status words; the sentence of each stands in status.py
OK = "ok"
WARNING = "warning"
SKIPPED_TOO_FEW_CELLS = "skipped_too_few_cells"
SKIPPED_NO_INPUT = "skipped_no_input"
SKIPPED_BY_PARAMETER = "skipped_by_parameter"
SKIPPED_SAMPLE_CRITERIA = "skipped_sample_criteria"
SKIPPED_INSUFFICIENT_REFERENCE = "skipped_insufficient_reference"
SKIPPED_FEW_GENES = "skipped_few_genes"
SKIPPED_ONE_BATCH = "skipped_one_batch"
NO_REPLICATES = "no_replicates"
NOT_ESTIMABLE = "not_estimable"
CNV_QUIET = "cnv_quiet"
NO_TERMINAL_STATE = "no_terminal_state"
OUT_OF_RANGE = "out_of_range"
FAILED_NO_CELLS = "failed_no_cells"
FAILED_UNFILTERED = "failed_unfiltered"
FAILED_NAN_LOSS = "failed_nan_loss"


def natural(text: Any) -> list[tuple[int, int, str]]:
    """Sort key of names under which PRE-2 stands before PRE-10; equal only for equal names, so that every order is one order."""
    parts = [part for part in re.split(r"([0-9]+)", str(text)) if part]
    # the name itself ends the key, before any longer name: 1 and 01 must not stand in the order of a set
    return [*((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts), (-1, 0, str(text))]
