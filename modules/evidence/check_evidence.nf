// Refuses evidence tables that cannot be used before any work: one message with the faults of all of them.
// in:  datasets with their clinical tables, the datasets measured in bulk with their expression tables; the sheet of datasets,
//      gene sets, tables of wells, tables of stained fields (each any number, none included); phases, samples
// out: evidence_inputs.tsv, one row per table
// every file lies in a folder of its own, so that files of one name from different folders stay apart

process CHECK_EVIDENCE {
    tag 'cohort'
    label 'light'

    input:
    tuple val(datasets), path(clinical, stageAs: 'clinical*/*', arity: '0..*')
    tuple val(measured), path(expression, stageAs: 'expression*/*', arity: '0..*')
    path sheet, stageAs: 'sheet/*'
    path signatures, stageAs: 'signatures*/*'
    path plates, stageAs: 'plates*/*'
    path fields, stageAs: 'fields*/*'
    path phases
    path samples

    output:
    path 'evidence_inputs.tsv', emit: checked
    path 'evidence_inputs.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def rows = sheet ? "--sheet ${sheet}" : ''
    def outcomes = [datasets, clinical].transpose().collect { dataset, file -> "--clinical ${dataset} ${file}" }.join(' ')
    def bulk = [measured, expression].transpose().collect { dataset, file -> "--expression ${dataset} ${file}" }.join(' ')
    """
    check_evidence.py \\
        ${rows} ${outcomes} ${bulk} \\
        --plates ${plates} \\
        --fields ${fields} \\
        --phases ${phases} \\
        --samples ${samples} \\
        ${signatures ? "--signatures ${signatures}" : ''} \\
        ${task.ext.args ?: ''} \\
        ${task.ext.plates ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch evidence_inputs.tsv check_evidence.cohort.status.tsv check_evidence.cohort.provenance.json
    """
}
