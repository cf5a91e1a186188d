// Draws a cohort with known truth, for the demo and for users who ask what their design could detect.
// in:  gene positions, marker table, chromosome arms, genes of the cell cycle, optional table of samples
// out: a folder with a samplesheet and one 10x folder per sample; a folder with the truth, which no analysis step reads

process SIMULATE_COHORT {
    tag 'cohort'
    label 'light'

    input:
    path positions
    path markers
    path arms
    path cell_cycle
    path design, stageAs: 'design/*'

    output:
    path 'cohort', emit: cohort
    path 'truth', emit: truth
    path 'evidence', emit: evidence
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    simulate_cohort.py \\
        --positions ${positions} \\
        --markers ${markers} \\
        --arms ${arms} \\
        --cell_cycle ${cell_cycle} \\
        ${design ? "--design ${design}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    mkdir -p cohort/A1 cohort/B1 truth evidence
    printf 'dataset,clinical,expression\\nbulk,bulk_clinical.tsv,bulk_expression.tsv.gz\\n' > evidence/survival.csv
    touch evidence/bulk_clinical.tsv evidence/bulk_expression.tsv.gz evidence/plates.tsv evidence/staining.tsv
    printf 'sample,patient,phase,path\\nA1,A,PRE,A1\\nB1,B,POST,B1\\n' > cohort/samplesheet.csv
    touch truth/cells.parquet
    touch simulate_cohort.cohort.status.tsv simulate_cohort.cohort.provenance.json
    """
}
