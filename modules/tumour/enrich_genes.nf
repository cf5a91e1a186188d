// Gene sets in chosen genes (over-representation) and in ranked genes (GSEA), for every group of one rankings file.
// in:  name and <unit>.rankings.tsv.gz of a contrast, a marker, the epithelial clusters or the modules; gene set collections (may be none)
// out: <unit>.ora.tsv.gz, .gsea.tsv.gz; small tables and pictures for the report

process ENRICH_GENES {
    tag "${unit}"
    label 'unit'
    memory { 3.GB * task.attempt }

    input:
    tuple val(unit), path(rankings)
    path collections

    output:
    tuple val(unit), path("${unit}.gsea.tsv.gz"), emit: gsea
    tuple val(unit), path("${unit}.ora.tsv.gz"), emit: ora
    path "${unit}.{ora,gsea}.tsv.gz", topic: tables
    path "${unit}.{ora_top,gsea_top,enrichment_groups}.tsv", topic: tables
    path "${unit}.{running_sum,enrichment_dots}.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def sets = collections ? "--collections ${collections}" : ''
    """
    enrich_genes.py \\
        --unit ${unit} \\
        --rankings ${rankings} \\
        ${sets} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${unit}.ora.tsv.gz ${unit}.gsea.tsv.gz ${unit}.ora_top.tsv ${unit}.gsea_top.tsv ${unit}.enrichment_groups.tsv \\
        ${unit}.running_sum.png ${unit}.enrichment_dots.png enrich_genes.${unit}.status.tsv enrich_genes.${unit}.provenance.json
    """
}
