// Genes, signatures, programs, scores and groups of patients against time to an event in one bulk or clinical cohort.
// in:  name, clinical table and expression table (may be none) of a dataset; the sheet of datasets, gene sets, modules (may be none)
// out: <dataset>.cox.tsv, .logrank.tsv, .km.tsv, .survival_groups.tsv, .survival_summary.tsv; pictures of curves and ratios

process TEST_SURVIVAL {
    tag "${dataset}"
    label 'unit'
    memory { 3.GB * task.attempt } // of an expression table only the rows that are asked for are kept

    input:
    tuple val(dataset), path(clinical, stageAs: 'clinical/*'), path(expression, stageAs: 'expression/*')
    path sheet, stageAs: 'sheet/*'
    path signatures, stageAs: 'signatures/*'
    path modules, stageAs: 'modules/*'

    output:
    tuple val(dataset), path("${dataset}.cox.tsv"), emit: cox
    tuple val(dataset), path("${dataset}.logrank.tsv"), emit: logrank
    tuple val(dataset), path("${dataset}.survival_groups.tsv"), emit: groups
    path "${dataset}.{survival_summary,cox,logrank,km,survival_groups}.tsv", topic: tables
    path "${dataset}.{kaplan_meier,hazard_ratios}.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def bulk = expression ? "--expression ${expression}" : ''
    def rows = sheet ? "--sheet ${sheet}" : ''
    def sets = signatures && expression ? "--signatures ${signatures}" : ''
    def programs = modules && expression ? "--modules ${modules}" : ''
    """
    test_survival.py \\
        --dataset ${dataset} \\
        --clinical ${clinical} \\
        ${bulk} \\
        ${rows} \\
        ${sets} \\
        ${programs} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${dataset}.survival_summary.tsv ${dataset}.cox.tsv ${dataset}.logrank.tsv ${dataset}.km.tsv \\
        ${dataset}.survival_groups.tsv ${dataset}.kaplan_meier.png ${dataset}.hazard_ratios.png \\
        test_survival.${dataset}.status.tsv test_survival.${dataset}.provenance.json
    """
}
