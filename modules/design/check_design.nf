// Refuses impossible input before any work; derives contrasts, pairs and confounding.
// in:  the canonical samplesheet (lib/Samplesheet.groovy), optional tables of phases and contrasts
// out: samples.tsv (with the thresholds in force per sample), contrasts.tsv, confounding.tsv, questions.tsv, phases.tsv, design.json

process CHECK_DESIGN {
    tag 'cohort'
    label 'light'
    // name and size, not time: the table is named after its content, so a shuffled samplesheet is the same input
    cache 'lenient'

    input:
    path samplesheet, stageAs: 'samplesheet.tsv'
    path phase_table, stageAs: 'phase_table/*'
    path contrast_table, stageAs: 'contrast_table/*'

    output:
    path 'samples.tsv', emit: samples
    path 'phases.tsv', emit: phases
    path 'contrasts.tsv', emit: contrasts
    path 'design.json', emit: design
    path '{samples,phases,contrasts,confounding,questions}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    check_design.py \\
        --samplesheet ${samplesheet} \\
        ${phase_table ? "--phase_table ${phase_table}" : ''} \\
        ${contrast_table ? "--contrast_table ${contrast_table}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    // the real check: it takes a second, and every later channel hangs on its tables
    """
    check_design.py \\
        --samplesheet ${samplesheet} \\
        ${phase_table ? "--phase_table ${phase_table}" : ''} \\
        ${contrast_table ? "--contrast_table ${contrast_table}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """
}
