#!/usr/bin/env python3
"""Find a space in which cells group by type and not by batch, and measure it before and after.

Writes embedding.parquet (latent_1 ..), graph.npz (bbknn; empty for the other methods), integration_quality.tsv, training.tsv.

Example: integrate_cohort.py --input merged.h5ad --markers assets/markers.tsv --method scvi --max_epochs 100
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

STEP = "integrate_cohort"
QUALITY_RESOLUTION = 1.0  # Leiden resolution behind the measures that need clusters
QUALITY_NEIGHBORS = 15
MIN_GENES = 2  # highly variable; fewer have no component
METHODS = ("scvi", "harmony", "bbknn", "none")
PACKAGES = {"scvi": ["scvi-tools", "torch"], "harmony": ["harmonypy"], "bbknn": ["bbknn"], "none": []}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--markers", required=True, type=Path, help="marker table, for the coarse types of the measures")
    add("--method", choices=METHODS, default="scvi", help="method of integration (default scvi)")
    add("--batch_key", type=cli.sample_id, default=keys.SAMPLE, help="column of obs to correct for (default sample)")
    add("--n_pcs", type=cli.number(2, 500, int), default=30, help="principal components (default 30)")
    add("--n_latent", type=cli.number(2, 500, int), default=30, help="scVI: latent dimensions (default 30)")
    add("--n_layers", type=cli.number(1, 20, int), default=2, help="scVI: hidden layers (default 2)")
    add("--n_hidden", type=cli.number(1, 10_000, int), default=128, help="scVI: nodes per hidden layer (default 128)")
    add("--max_epochs", type=cli.number(0, 100_000, int), default=0, help="scVI: epochs; 0: min(400, 400 x 20,000 / cells)")
    add("--batch_size", type=cli.number(0, 100_000, int), default=0, help="scVI: cells per minibatch; 0: 128, 512 for many")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="device of scVI (default cpu)")
    return parser.parse_args(argv)


def check_device(device: str) -> None:
    """Stop in the first seconds, before the matrix is read, when the device does not exist.

    Raises
    ------
    InputError
        naming what was found.
    """
    from scresist import integration

    try:
        integration.accelerator(device)
    except integration.NoDeviceError as error:
        raise io.InputError(
            f"--device gpu: {error}. Give --device cpu (run without -profile gpu), or use a machine whose driver fits this torch"
        ) from error


def read_merged(path: Path, batch_key: str) -> tuple[anndata.AnnData, np.ndarray]:
    """The cohort and the batch of each cell.

    Raises
    ------
    InputError
        when the contract is broken, or the batches or highly variable genes are missing.
    """
    merged = contract.check(anndata.read_h5ad(path), path.name, normalised=True)
    if batch_key not in merged.obs:
        raise io.InputError(
            f"--batch_key {batch_key} (--integration_batch): {path.name} has no such column; "
            f"it has {', '.join(sorted(map(str, merged.obs)))}"
        )
    if keys.HIGHLY_VARIABLE not in merged.var or merged.var[keys.HIGHLY_VARIABLE].sum() < MIN_GENES:
        raise io.InputError(
            f"{path.name}: var['{keys.HIGHLY_VARIABLE}'] must mark at least {MIN_GENES} genes; make the file with merge_cohort.py"
        )
    return merged, merged.obs[batch_key].astype(str).to_numpy()


def integrate(
    args: argparse.Namespace, method: str, counts: sparse.csr_matrix, components: np.ndarray, batch: np.ndarray, seed: int
):
    """The embedding of a method; see scresist.integration.

    Raises
    ------
    InputError
        when scVI's loss becomes undefined.
    """
    from scresist import integration

    if method == "harmony":
        return integration.harmony(components, batch, seed, args.threads)
    if method == "bbknn":
        return integration.bbknn(components, batch, args.threads)
    if method == "none":
        return integration.Embedding(components)
    try:
        return integration.scvi(
            counts, batch, n_latent=args.n_latent, n_layers=args.n_layers, n_hidden=args.n_hidden, max_epochs=args.max_epochs,
            batch_size=args.batch_size, seed=seed, threads=integration.SCVI_THREADS, device=args.device,
        )  # fmt: skip
    except integration.NanLossError as error:
        # the whole cohort stands or falls with its space: an error, not a status that later steps would have to read
        raise io.InputError(
            f"scVI did not fit ({keys.FAILED_NAN_LOSS}): {error}. Look in 01_samples for a sample with very few or extreme "
            "counts, raise --min_counts, set --scvi_n_layers 1 or another --seed, or use --integration harmony"
        ) from error


def quality(merged: anndata.AnnData, batch: np.ndarray, spaces: dict, markers: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The measures of the uncorrected space (first of `spaces`) and of the chosen one, side by side."""
    from scresist import clustering, integration_quality

    tables, label = [], None
    for method, space in spaces.items():
        graph = clustering.neighbour_graph(space.values, QUALITY_NEIGHBORS, seed) if space.graph is None else space.graph
        cluster = clustering.leiden(graph, QUALITY_RESOLUTION, seed)
        if label is None:
            label = integration_quality.provisional_labels(merged.X, merged.var_names, cluster, markers)
        tables.append(
            integration_quality.measure(
                method,
                space.values,
                graph=space.graph,
                cluster=cluster,
                label=label,
                batch=batch,
                patient=merged.obs[keys.PATIENT].astype(str).to_numpy(),
                seed=seed,
                k=QUALITY_NEIGHBORS,
            )
        )
    return pd.concat(tables, ignore_index=True)


def write_graph(graph: sparse.csr_matrix | None, path: Path) -> None:
    """Connectivities as npz; 0 x 0 where the method makes none."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:  # save_npz given a name would append .npz to it
            sparse.save_npz(handle, graph if graph is not None else sparse.csr_matrix((0, 0), dtype=np.float32))

    io.write_atomically(path, write)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)  # before torch, numba and scikit-learn are imported, which the kernels do
    if args.method == "scvi":
        check_device(args.device)
    from scresist import clustering, integration

    merged, batch = read_merged(args.input, args.batch_key)
    markers = io.read_tsv(args.markers, dtype=str)
    seed = cli.unit_seed(args.seed, STEP, "cohort")
    n_batches = len(set(batch))
    word, reasons = keys.OK, []
    if args.method == "none":
        word, reasons = keys.SKIPPED_BY_PARAMETER, ["--integration none; principal components are used"]
    elif merged.n_obs < clustering.MIN_CELLS_CLUSTER:
        word = keys.SKIPPED_TOO_FEW_CELLS
        reasons = [f"{merged.n_obs} cells, {clustering.MIN_CELLS_CLUSTER} needed; principal components are used"]
    elif n_batches < 2:
        word, reasons = keys.SKIPPED_ONE_BATCH, [f"1 batch in `{args.batch_key}` ({batch[0]}); principal components are used"]
    method = args.method if word == keys.OK else "none"

    hvg = np.flatnonzero(merged.var[keys.HIGHLY_VARIABLE].to_numpy(dtype=bool))
    components = integration.pca(merged.X[:, hvg], args.n_pcs, seed)
    counts = merged.layers[keys.COUNTS][:, hvg]
    del merged.layers[keys.COUNTS]  # from here on only X is needed, for the marker genes
    found = integrate(args, method, counts, components, batch, seed)
    if found.small:
        word = keys.WARNING
        how = "projected, not trained on" if method == "scvi" else "pooled"
        reasons.append(f"batches of fewer than {integration.MIN_CELLS_BATCH} cells were {how}: {', '.join(found.small)}")
    if method != "none" and n_batches - len(found.small) < 2:
        reasons.append(f"1 batch in `{args.batch_key}` is left beside them: nothing was corrected between large batches")

    table = pd.DataFrame(columns=["method", "metric", "label", "value", "n_cells", "better"])
    if merged.n_obs >= clustering.MIN_CELLS_CLUSTER:
        spaces = {"none": integration.Embedding(components)} | ({} if method == "none" else {method: found})
        table = quality(merged, batch, spaces, markers, seed)

    embedding = pd.DataFrame(found.values, columns=[f"{keys.LATENT_PREFIX}{i + 1}" for i in range(found.values.shape[1])])
    embedding.insert(0, keys.CELL, merged.obs_names.to_numpy(dtype=object))
    io.write_fragment(embedding, Path("embedding.parquet"))
    write_graph(found.graph, Path("graph.npz"))
    io.write_tsv(table, Path("integration_quality.tsv"))
    io.write_tsv(found.training.astype({"epoch": "int64"}), Path("training.tsv"))

    done = f"{method} on {found.device}" if method != "none" else "principal components"
    if len(found.training):
        done += f", {len(found.training)} epochs, final loss {found.training['loss'].iloc[-1]:.1f}"
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=word, reason="; ".join(reasons), n_cells=merged.n_obs,
        n_samples=merged.obs[keys.SAMPLE].nunique(), n_patients=merged.obs[keys.PATIENT].nunique(),
        sentence=f"{status.SENTENCES[word]} {merged.n_obs:,} cells, number of batches {n_batches}: {done}.",
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "harmonypy", "numpy", "pandas", "scanpy", "scikit-learn", "scipy", *PACKAGES[method]]
    used = {
        "device": found.device,
        "method_used": method,
        "epochs": len(found.training),
        "unit_seed": seed,
        "n_batches": n_batches,
    }
    if method == "scvi":
        n_trained = int((~np.isin(batch, found.small)).sum())
        used["minibatch_size"] = integration.minibatch_size(n_trained, args.batch_size)
    provenance.write(provenance.record(STEP, "cohort", args, sorted(set(packages)), **used))
    return 0


if __name__ == "__main__":
    cli.run(main)
