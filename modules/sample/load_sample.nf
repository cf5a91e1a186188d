// Reads any usual count matrix into one contract (bin/scresist/contract.py), or refuses it with the reason.
// in:  [meta, matrix: 10x folder, 10x h5, h5ad, or table, state of a folder's files (hashed, not used)], gene positions, aliases
// out: [meta, h5ad with layers['counts']]; a sample without barcodes: failed_no_cells, an empty h5ad

process LOAD_SAMPLE {
    tag "${meta.id}"
    label 'sample'
    // the user's own files by name, size and time: reading gigabytes at every -resume would cost more than it saves
    cache true

    input:
    tuple val(meta), path(matrix, stageAs: 'matrix/*'), val(state)
    path positions
    path aliases

    output:
    tuple val(meta), path("${meta.id}.h5ad"), emit: h5ad
    path "${meta.id}.load.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    load_sample.py \\
        --sample ${meta.id} \\
        --patient '${meta.patient}' \\
        --phase '${meta.phase}' \\
        --batch '${meta.batch}' \\
        --input ${matrix} \\
        --positions ${positions} \\
        --aliases ${aliases} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${meta.id}.h5ad ${meta.id}.load.tsv load_sample.${meta.id}.status.tsv load_sample.${meta.id}.provenance.json
    """
}
