// Copy-number clones of one patient over all phases: events, shares with intervals, changes, tree, pictures.
// in:  patient, profiles, calls of malignant cells; phases.tsv; panels (genes whose locus is listed) or none
// out: <patient>.clones.parquet; tables of clones, events, shares, changes, tree, diversity; heat map and flow plot

process TRACE_CLONES {
    tag "${patient}"
    label 'unit'
    memory { (4.GB + ("${10 * cnv.size()} B" as MemoryUnit)) * task.attempt }

    input:
    tuple val(patient), path(cnv), path(malignant)
    path phases
    path panels

    output:
    tuple val(patient), path("${patient}.clones.parquet"), emit: clones
    tuple val(patient), path("${patient}.clones.tsv"), emit: table
    path "${patient}.{clone_phases,clone_changes,clone_diversity}.tsv", emit: shares
    path "${patient}.clones.parquet", topic: fragments
    path "${patient}.{clones,clone_events,clone_phases,clone_changes,clone_tree,clone_diversity}.tsv", topic: tables
    path "${patient}.{cnv_heatmap,clone_flow}.png", topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def loci = panels ? "--panels ${panels}" : ''
    """
    trace_clones.py \\
        --patient ${patient} \\
        --cnv ${cnv} \\
        --malignant ${malignant} \\
        --phases ${phases} \\
        ${loci} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch ${patient}.clones.parquet ${patient}.clones.tsv ${patient}.clone_events.tsv ${patient}.clone_phases.tsv
    touch ${patient}.clone_changes.tsv ${patient}.clone_tree.tsv ${patient}.clone_diversity.tsv
    touch ${patient}.cnv_heatmap.png ${patient}.clone_flow.png
    touch trace_clones.${patient}.status.tsv trace_clones.${patient}.provenance.json
    """
}
