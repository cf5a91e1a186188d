// Scores doublets with Scrublet and calls cells and clusters by stated rules.
// in:  [meta, settings, h5ad, flags], marker table
// out: [meta, scores and calls per cell]; fewer than --doublet_min_cells cells: skipped_too_few_cells, nobody is called

process DETECT_DOUBLETS {
    tag "${meta.id}"
    label 'sample'

    input:
    tuple val(meta), val(settings), path(h5ad), path(flags)
    path markers

    output:
    tuple val(meta), path("${meta.id}.doublets.parquet"), emit: doublets
    path "${meta.id}.{doublets,doublet_hist}.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    detect_doublets.py \\
        --sample ${meta.id} \\
        --input ${h5ad} \\
        --flags ${flags} \\
        --markers ${markers} \\
        --expected_doublet_rate ${settings.expected_doublet_rate} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${meta.id}.doublets.parquet ${meta.id}.doublets.tsv ${meta.id}.doublet_hist.tsv detect_doublets.${meta.id}.status.tsv detect_doublets.${meta.id}.provenance.json
    """
}
