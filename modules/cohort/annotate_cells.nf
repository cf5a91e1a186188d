// One main type and one subtype per cell with the evidence of every source; unresolved where sources disagree.
// in:  merged.h5ad, clusters, marker table, label map, CellTypist models (may be none)
// out: annotation.parquet; annotation.tsv, marker_check.tsv, types.tsv, models.tsv

process ANNOTATE_CELLS {
    tag 'cohort'
    label 'cohort'
    memory { (4.GB + ("${10 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path clusters
    path markers, stageAs: 'table/*'
    path label_map
    path models, stageAs: 'models/*'

    output:
    path 'annotation.parquet', emit: annotation
    path 'annotation.parquet', topic: fragments
    path '{annotation,marker_check,types,models}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    annotate_cells.py \\
        --input ${merged} \\
        --clusters ${clusters} \\
        --markers ${markers} \\
        --label_map ${label_map} \\
        ${models ? "--models ${models}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch annotation.parquet annotation.tsv marker_check.tsv types.tsv models.tsv annotate_cells.cohort.status.tsv annotate_cells.cohort.provenance.json
    """
}
