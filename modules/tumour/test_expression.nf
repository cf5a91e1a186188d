// Genes that differ between the two sides of a contrast, per cell type: per cell and per patient (pseudobulk).
// in:  name of the contrast, contrasts, samples, merged.h5ad, annotation, calls of malignant cells, further labels
// out: <contrast>.rankings.tsv.gz; tables of both tests, their summary, volcano plots

process TEST_EXPRESSION {
    tag "${contrast}"
    label 'unit'
    memory { (4.GB + ("${10 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    val contrast
    path contrasts
    path samples
    path merged
    path annotation
    path tumour, stageAs: 'tumour/*'
    path groups, stageAs: 'groups/*'

    output:
    tuple val(contrast), path("${contrast}.rankings.tsv.gz"), emit: rankings
    tuple val(contrast), path("${contrast}.de_pseudobulk.tsv.gz"), emit: pseudobulk
    path "${contrast}.{de_cells,de_pseudobulk,rankings}.tsv.gz", topic: tables
    path "${contrast}.{pseudobulk_samples,de_summary,de_top}.tsv", topic: tables
    path "${contrast}.volcano.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def calls = tumour ? "--tumour ${tumour}" : ''
    def labels = groups ? "--groups ${groups}" : ''
    """
    test_expression.py \\
        --contrast ${contrast} \\
        --contrasts ${contrasts} \\
        --samples ${samples} \\
        --input ${merged} \\
        --annotation ${annotation} \\
        ${calls} \\
        ${labels} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${contrast}.de_cells.tsv.gz ${contrast}.de_pseudobulk.tsv.gz ${contrast}.rankings.tsv.gz
    touch ${contrast}.pseudobulk_samples.tsv ${contrast}.de_summary.tsv ${contrast}.de_top.tsv ${contrast}.volcano.png
    touch test_expression.${contrast}.status.tsv test_expression.${contrast}.provenance.json
    """
}
