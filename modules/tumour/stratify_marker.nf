// Cells that express a marker against cells of the same depth that do not: shares, genes, module scores.
// in:  marker, merged.h5ad, annotation, calls of malignant cells, module scores (or none), further labels
// out: <marker>.rankings.tsv.gz; shares per sample, genes, scores, groups, volcano plots

process STRATIFY_MARKER {
    tag "${marker}"
    label 'unit'
    memory { (4.GB + ("${10 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    val marker
    path merged
    path annotation
    path tumour, stageAs: 'tumour/*'
    path modules, stageAs: 'modules/*'
    path groups, stageAs: 'groups/*'

    output:
    tuple val(marker), path("${marker}.rankings.tsv.gz"), emit: rankings
    path "${marker}.{marker_de,rankings}.tsv.gz", topic: tables
    path "${marker}.{marker_share,marker_top,marker_scores,marker_groups}.tsv", topic: tables
    path "${marker}.marker_volcano.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def calls = tumour ? "--tumour ${tumour}" : ''
    def scores = modules ? "--modules ${modules}" : ''
    def labels = groups ? "--groups ${groups}" : ''
    """
    stratify_marker.py \\
        --marker ${marker} \\
        --input ${merged} \\
        --annotation ${annotation} \\
        ${calls} \\
        ${scores} \\
        ${labels} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${marker}.marker_de.tsv.gz ${marker}.rankings.tsv.gz ${marker}.marker_share.tsv ${marker}.marker_top.tsv
    touch ${marker}.marker_scores.tsv ${marker}.marker_groups.tsv ${marker}.marker_volcano.png
    touch stratify_marker.${marker}.status.tsv stratify_marker.${marker}.provenance.json
    """
}
