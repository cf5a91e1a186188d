"""Patients for the tests of the resistance card: one route true in each, or two biopsies of T cells by count."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scresist import clones as clone_kernel
from scresist import decomposition, keys, panels, routes
from scresist.route_measures import Evidence, Program

PHASES = pd.DataFrame(
    {"phase": ["PRE", "RES", "POST", "PRE-R"], "role": ["baseline", "response", "acquired_resistance", "primary_resistance"],
     "order": [1, 2, 3, 4], "time": [0, 1, 2, np.nan]}
)  # fmt: skip
MHC = ["HLA-A", "HLA-B", "B2M"]
KINDS = routes.ROUTES
PAIR = ("POST", "PRE")



def planted_patient(kind: str, seed: int, patient: str = "P1"):
    """Cells and tables of one patient with three biopsies in which one route is true; biopsies differ a little anyway."""
    rng = np.random.default_rng([seed, KINDS.index(kind) if kind in KINDS else 9])
    shares = {"PRE": [0.6, 0.3, 0.1], "RES": [0.6, 0.3, 0.1], "POST": [0.6, 0.3, 0.1]}
    level = {phase: np.array([0.0, 0.2, 0.1]) for phase in shares}
    if kind == KINDS[0]:
        shares |= {"RES": [0.45, 0.15, 0.4], "POST": [0.2, 0.1, 0.7]}
        level = {phase: np.array([0.0, 0.2, 1.5]) for phase in shares}
    if kind == KINDS[1]:
        level = {"PRE": level["PRE"], "RES": level["PRE"] + 0.5, "POST": level["PRE"] + 1.5}
    micro = kind == KINDS[2]
    frames, values, flow, immune = [], [], [], []
    for phase in shares:
        sample, bio = f"{phase}-{patient}", rng.normal(0, 0.02, 8)
        n = 200
        clone = rng.choice(3, size=n, p=shares[phase])
        g2m = 0.05 if kind == KINDS[1] and phase == "RES" else 0.25
        state = np.where(rng.random(n) < 0.6, "0", "1")
        if kind == KINDS[1] and phase == "POST":
            state = np.where(rng.random(n) < 0.4, "2", state)
        tumour = pd.DataFrame(
            {
                keys.MAIN_TYPE: "Epithelial", keys.LINEAGE: "epithelial", keys.TUMOUR: True,
                keys.CLONE: [f"{patient}.C{c + 1}" for c in clone], keys.EPI_CLUSTER: state,
                keys.CYCLE_PHASE: np.where(rng.random(n) < g2m, "G2M", np.where(rng.random(n) < 1.2 * g2m, "S", "G1")),
                keys.G2M_SCORE: rng.normal(size=n), "program": rng.normal(level[phase][clone] + bio[0], 1.0),
            }
        )  # fmt: skip
        # most immune cells are B cells; T and myeloid cells are as many in every biopsy
        share = (0.3 if micro and phase == "POST" else 0.5) + bio[1]
        n_immune = int(rng.binomial(1000, share))
        types = ["CD8_T"] * 120 + ["Macrophage"] * 60
        other = pd.DataFrame(
            {
                keys.MAIN_TYPE: types, keys.LINEAGE: "immune", keys.TUMOUR: False, keys.CLONE: "", keys.EPI_CLUSTER: "",
                keys.CYCLE_PHASE: "", keys.G2M_SCORE: np.nan, "program": np.nan,
            }
        )  # fmt: skip
        part = pd.concat([tumour, other], ignore_index=True)
        part[keys.SAMPLE], part[keys.PATIENT], part[keys.PHASE] = sample, patient, phase
        fall = 0.6 if micro and phase == "POST" else 0.0
        for gene in (*MHC, "CD74"):
            part[gene] = rng.normal(2.0 + bio[2] - fall * part[keys.TUMOUR], 0.7)
        positive = rng.binomial(120, (0.45 if micro and phase == "POST" else 0.2) + bio[3])
        part["PDCD1"] = 0.0
        part.loc[part.index[part[keys.MAIN_TYPE] == "CD8_T"][:positive], "PDCD1"] = 1.0
        values.append(("checkpoint", "PDCD1", "t_cell", sample, patient, phase, 120, 100 * positive / 120))
        frames.append(part)
        values += [("mhc_1", gene, "tumour", sample, patient, phase, n, 100.0) for gene in MHC]
        immune += [(sample, patient, phase, "main_type", "all", "immune", "B", n_immune, 1000),
                   (sample, patient, phase, "main_type", "all", "stromal", "Fibroblast", 1000 - n_immune, 1000)]  # fmt: skip
        for pathway in ("TGFb", "EGF", "FGF", "MHC-I", "MHC-II", "CXCL", "IFN-II"):
            up = pathway in ("TGFb", "EGF", "FGF")
            factor = (2.0 if up else 0.5) if micro and phase == "POST" else 1.0
            amount = factor * np.exp(rng.normal(0, 0.2))
            flow += [(f"{a}_vs_{b}", sample, patient, phase, pathway, amount)
                     for a, b in (("POST", "PRE"), ("RES", "PRE"), ("POST", "RES")) if phase in (a, b)]  # fmt: skip
    cells = pd.concat(frames, ignore_index=True)
    cells.index = [f"{s}:{i:04d}" for i, s in enumerate(cells[keys.SAMPLE])]
    own = cells[cells[keys.TUMOUR]]
    names = sorted(set(own[keys.CLONE]))
    arrays = own[keys.CLONE].to_numpy(dtype=object), own[keys.PHASE].to_numpy(dtype=object)
    phases = list(shares)
    of_phase = clone_kernel.shares(patient, names, *arrays, phases)
    pairs = clone_kernel.phase_pairs(phases, {"PRE": 0, "RES": 1, "POST": 2})
    counts = {p: [int(((arrays[0] == c) & (arrays[1] == p)).sum()) for c in names] for p in phases}
    tables = {
        "clone_phases": of_phase, "clone_changes": clone_kernel.changes(of_phase, pairs, 30, 0.05),
        "clone_diversity": clone_kernel.diversity_table(patient, counts, seed),
        "panel_values": pd.DataFrame(
            values, columns=["panel", "gene", "cell_type", "sample", "patient", "phase", "n_cells", "pct"]
        ),
        "proportions": pd.DataFrame(
            immune, columns=["sample", "patient", "phase", "level", "denominator", "lineage", "cell_type", "n_cells", "n_total"]
        ),
        "flow": pd.DataFrame(flow, columns=["contrast", "sample", "patient", "phase", "pathway", "flow_common"]),
    }  # fmt: skip
    return cells, tables


def evidence_of(parts, n_boot=60):
    """Evidence from the cells and tables of several patients; the program is divided over the whole course."""
    cells = pd.concat([part[0] for part in parts])
    names = {name for _, tables in parts for name in tables}
    tables = {name: pd.concat([t[name] for _, t in parts if name in t], ignore_index=True) for name in names}
    samples = cells[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].drop_duplicates(ignore_index=True)
    patients, cohort, without = routes.courses(samples, PHASES)
    divided = []
    for course in patients:
        own = cells[(cells[keys.PATIENT] == course.unit) & cells[keys.TUMOUR]]
        for later, earlier in [course.steps["total"]]:
            part = own[own[keys.PHASE].isin([later, earlier])]
            divided.append(
                decomposition.table(
                    course.unit, f"{later}_vs_{earlier}", part[["program"]].set_axis(["module_M1"], axis=1), part[keys.CLONE],
                    (part[keys.PHASE] == later).to_numpy(), True, 30, n_boot, 1,
                )
            )  # fmt: skip
    masks = panels.type_masks(cells[keys.MAIN_TYPE].tolist(), cells[keys.LINEAGE].tolist(), cells[keys.TUMOUR].to_numpy())
    genes = [column for column in (*MHC, "CD74", "PDCD1") if column in cells]
    ev = Evidence(
        cells, cells[genes], masks, tables, samples, {"mhc_1": MHC, "mhc_2": ["CD74"]},
        pd.concat(divided, ignore_index=True) if divided else pd.DataFrame(columns=list(decomposition.COLUMNS)),
        program=Program("module_M1", 1, "planted"),
    )  # fmt: skip
    return ev, patients, cohort, dict.fromkeys(without, "one biopsy")


def two_biopsies(counts):
    """Evidence of one patient: (phase, main type, cells, positive cells) of PDCD1; positive cells hold 1 to 3 in turn."""
    frames = []
    for phase, kind, n, positive in counts:
        part = pd.DataFrame(
            {
                keys.SAMPLE: f"{phase}-P1", keys.PATIENT: "P1", keys.PHASE: phase, keys.MAIN_TYPE: kind, keys.LINEAGE: "immune",
                keys.TUMOUR: False, "PDCD1": [1.0 + i % 3 if i < positive else 0.0 for i in range(n)],
            }
        )  # fmt: skip
        frames.append(part)
    cells = pd.concat(frames, ignore_index=True)
    masks = panels.type_masks(cells[keys.MAIN_TYPE].tolist(), cells[keys.LINEAGE].tolist(), cells[keys.TUMOUR].to_numpy())
    samples = cells[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].drop_duplicates(ignore_index=True)
    return Evidence(cells, cells[["PDCD1"]], masks, {}, samples, {}, pd.DataFrame())


def flows(values):
    """flow.tsv of POST_vs_PRE from (phase, patient) -> flow of TGFb, EGF, FGF, CXCL."""
    rows = [
        ("POST_vs_PRE", f"{phase}-{patient}", patient, phase, pathway, flow)
        for (phase, patient), own in values.items()
        for pathway, flow in zip(("TGFb", "EGF", "FGF", "CXCL"), own, strict=True)
    ]
    return pd.DataFrame(rows, columns=["contrast", "sample", "patient", "phase", "pathway", "flow_common"])
