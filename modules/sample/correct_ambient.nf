// Takes ambient RNA out of the counts with scAR, where the unfiltered matrix is given.
// in:  [meta, sample h5ad, unfiltered 10x matrix]
// out: [meta, h5ad with corrected counts, the originals in layers['counts_raw']]

process CORRECT_AMBIENT {
    tag "${meta.id}"
    label 'sample'
    label 'accelerated'

    input:
    tuple val(meta), path(h5ad), path(raw, stageAs: 'raw/*')

    output:
    tuple val(meta), path("${meta.id}.ambient.h5ad"), emit: h5ad
    path "${meta.id}.ambient.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    correct_ambient.py \\
        --sample ${meta.id} \\
        --input ${h5ad} \\
        --raw ${raw} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${meta.id}.ambient.h5ad ${meta.id}.ambient.tsv correct_ambient.${meta.id}.status.tsv correct_ambient.${meta.id}.provenance.json
    """
}
