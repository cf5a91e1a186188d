// Evidence for the routes of resistance per patient and cohort, the change of the program divided between clones, and surface
// targets that together reach every clone.
// in:  merged.h5ad, annotation; malignant and clone fragments of all patients, states, modules (each may be none); tables of other
//      steps (by name, any number); samples, phases, contrasts; rules, targets
// out: route_items.tsv, route_card.tsv, route_rules_used.tsv, decomposition.tsv, target_clones.tsv, target_normal.tsv,
//      target_sets.tsv

process SCORE_ROUTES {
    tag 'cohort'
    label 'cohort'
    memory { (4.GB + ("${6 * merged.size()} B" as MemoryUnit)) * task.attempt }

    input:
    path merged
    path annotation
    path tumour
    path clones
    path epi_clusters
    path modules
    path 'tables/*'
    path samples
    path phases
    path contrasts
    path rules
    path targets

    output:
    path 'route_items.tsv', emit: items
    path 'route_card.tsv', emit: card
    path 'decomposition.tsv', emit: decomposition
    path 'target_sets.tsv', emit: sets
    path '{route_items,route_card,route_rules_used,decomposition,target_clones,target_normal,target_sets}.tsv', topic: tables
    path '*.status.tsv', topic: status
    path '*.provenance.json', topic: provenance

    script:
    def called = tumour ? "--tumour ${tumour}" : ''
    def traced = clones ? "--clones ${clones}" : ''
    def states = epi_clusters ? "--epi_clusters ${epi_clusters}" : ''
    def programs = modules ? "--modules ${modules}" : ''
    """
    mkdir -p tables
    score_routes.py \\
        --input ${merged} \\
        --annotation ${annotation} \\
        ${called} ${traced} ${states} ${programs} \\
        --tables tables \\
        --samples ${samples} \\
        --phases ${phases} \\
        --contrasts ${contrasts} \\
        --rules ${rules} \\
        --targets ${targets} \\
        ${task.ext.args ?: ''} \\
        --seed ${task.ext.seed} --threads ${task.cpus} --code ${task.ext.code}
    """

    stub:
    """
    touch route_items.tsv route_card.tsv route_rules_used.tsv decomposition.tsv target_clones.tsv target_normal.tsv target_sets.tsv
    touch score_routes.cohort.status.tsv score_routes.cohort.provenance.json
    """
}
