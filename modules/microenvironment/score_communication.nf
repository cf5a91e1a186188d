// Which cell types of one sample may signal to which: LIANA's consensus rank, CellChat's probabilities with pathways.
// in:  sample, merged.h5ad, annotation.parquet; samples.tsv; the pair table; complexes and cofactors of CellChatDB ([] for none)
// out: [sample, links, groups]; ranks and links of the sample, sums by pathway and by type

process SCORE_COMMUNICATION {
    tag "${sample}"
    label 'unit'
    memory { (6.GB + ("${2 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    tuple val(sample), path(merged), path(annotation)
    path samples
    path lr_table
    path lr_complexes
    path lr_cofactors

    output:
    tuple val(sample), path("${sample}.lr_prob.tsv.gz"), path("${sample}.comm_groups.tsv"), emit: links
    path "${sample}.{liana,lr_prob}.tsv.gz", topic: tables
    path "${sample}.{liana_top,pathway_prob,comm_strength,comm_groups}.tsv", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def complexes = lr_complexes ? "--lr_complexes ${lr_complexes}" : ''
    def cofactors = lr_cofactors ? "--lr_cofactors ${lr_cofactors}" : ''
    """
    score_communication.py \\
        --sample ${sample} \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --samples ${samples} \\
        --lr_table ${lr_table} ${complexes} ${cofactors} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${sample}.liana.tsv.gz ${sample}.liana_top.tsv ${sample}.lr_prob.tsv.gz ${sample}.pathway_prob.tsv ${sample}.comm_strength.tsv \\
        ${sample}.comm_groups.tsv score_communication.${sample}.status.tsv score_communication.${sample}.provenance.json
    """
}
