// Draws a cohort with known truth, for the demo and for users who ask what their design could detect.
// in:  gene positions, marker table, chromosome arms, optional table of samples
// out: a folder with a samplesheet and one 10x folder per sample; a folder with the truth, which no analysis step reads

process SIMULATE_COHORT {
    tag 'cohort'
    label 'light'

    input:
    path positions
    path markers
    path arms
    path design, stageAs: 'design/*'

    output:
    path 'cohort', emit: cohort
    path 'truth', emit: truth
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    """
    simulate_cohort.py \\
        --positions ${positions} \\
        --markers ${markers} \\
        --arms ${arms} \\
        ${design ? "--design ${design}" : ''} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    mkdir -p cohort/A1 cohort/B1 truth
    printf 'sample,patient,phase,path\\nA1,A,PRE,A1\\nB1,B,POST,B1\\n' > cohort/samplesheet.csv
    touch truth/cells.parquet
    touch simulate_cohort.cohort.status.tsv simulate_cohort.cohort.provenance.json
    """
}
