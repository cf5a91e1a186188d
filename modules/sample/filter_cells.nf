// Applies the flags once and keeps for every cell why it was dropped.
// in:  [meta, h5ad, flags, doublets, sample criteria]
// out: [meta, filtered h5ad]; [meta, all cells that LOAD_SAMPLE saw]; too few cells left: skipped_too_few_cells, the cohort goes on

process FILTER_CELLS {
    tag "${meta.id}"
    label 'sample'

    input:
    tuple val(meta), path(h5ad), path(flags), path(doublets), path(sample_qc)

    output:
    tuple val(meta), path("${meta.id}.filtered.h5ad"), emit: h5ad
    tuple val(meta), path("${meta.id}.cells.parquet"), emit: cells
    path "${meta.id}.filter.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    filter_cells.py \\
        --sample ${meta.id} \\
        --input ${h5ad} \\
        --flags ${flags} \\
        --doublets ${doublets} \\
        --sample_qc ${sample_qc} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${meta.id}.filtered.h5ad ${meta.id}.cells.parquet ${meta.id}.filter.tsv filter_cells.${meta.id}.status.tsv filter_cells.${meta.id}.provenance.json
    """
}
