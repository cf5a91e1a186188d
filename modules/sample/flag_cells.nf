// Marks poor cells by fixed and adaptive thresholds and judges the sample; removes nothing.
// in:  [meta, thresholds in force for this sample, h5ad]
// out: [meta, flags per cell]; one row per sample with its criteria

process FLAG_CELLS {
    tag "${meta.id}"
    label 'sample'

    input:
    tuple val(meta), val(settings), path(h5ad)

    output:
    tuple val(meta), path("${meta.id}.flags.parquet"), emit: flags
    tuple val(meta), path("${meta.id}.sample_qc.tsv"), emit: table
    path "${meta.id}.sample_qc.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    flag_cells.py \\
        --sample ${meta.id} \\
        --input ${h5ad} \\
        --min_genes ${settings.min_genes} \\
        --min_counts ${settings.min_counts} \\
        --max_mt_pct ${settings.max_mt_pct} \\
        --mad_k ${settings.mad_k} \\
        --mad_k_mt ${settings.mad_k_mt} \\
        ${settings.saturation_pct ? "--saturation_pct ${settings.saturation_pct}" : ''} \\
        ${settings.reads_in_cells_pct ? "--reads_in_cells_pct ${settings.reads_in_cells_pct}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${meta.id}.flags.parquet ${meta.id}.sample_qc.tsv flag_cells.${meta.id}.status.tsv flag_cells.${meta.id}.provenance.json
    """
}
