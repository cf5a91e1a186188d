// Which signalling pathways gain or lose between phases, how sure that is, who sends and who receives.
// in:  merged.h5ad, annotation, the pair table and (CellChatDB only) its complexes and cofactors; probabilities and groups of all
//      samples; samples, phases, contrasts
// out: flow.tsv, ranknet.tsv, pathway_drivers.tsv, comm_phase.tsv, comm_absent.tsv

process COMPARE_COMMUNICATION {
    tag 'cohort'
    label 'cohort'
    memory { (4.GB + ("${6 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path lr_table
    path lr_complexes
    path lr_cofactors
    path lr_prob
    path groups
    path samples
    path phases
    path contrasts

    output:
    path 'flow.tsv', emit: flow
    path 'ranknet.tsv', emit: ranknet
    path 'pathway_drivers.tsv', emit: drivers
    path 'comm_phase.tsv', emit: by_phase
    path 'comm_absent.tsv', emit: absent
    path '{flow,ranknet,pathway_drivers,comm_phase,comm_absent}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def complexes = lr_complexes ? "--lr_complexes ${lr_complexes}" : ''
    def cofactors = lr_cofactors ? "--lr_cofactors ${lr_cofactors}" : ''
    """
    compare_communication.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        --lr_table ${lr_table} ${complexes} ${cofactors} \\
        --lr_prob ${lr_prob} \\
        --groups ${groups} \\
        --samples ${samples} \\
        --phases ${phases} \\
        --contrasts ${contrasts} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch flow.tsv ranknet.tsv pathway_drivers.tsv comm_phase.tsv comm_absent.tsv
    touch compare_communication.cohort.status.tsv compare_communication.cohort.provenance.json
    """
}
