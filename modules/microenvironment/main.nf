// MICROENVIRONMENT: shares of cell types, states of T cells, communication over phases, fates of tumour cells.

include { TEST_COMPOSITION      } from './test_composition'
include { SCORE_TCELLS          } from './score_tcells'
include { SCORE_COMMUNICATION   } from './score_communication'
include { COMPARE_COMMUNICATION } from './compare_communication'
include { MAP_FATES             } from './map_fates'

workflow MICROENVIRONMENT {
    take:
    cohort // value channels by name: merged, annotation, embedding
    design // value channels by name: samples, phases, contrasts
    assets // paths by name: lr_table, lr_complexes ([] for none), lr_cofactors ([] for none), tcell_states
    tumour // by name: labels (value channel: list of clones and clusters, may be empty), calls (patient, malignant, clones), states, modules

    main:
    // one column at a time, without empty names: the samples of the design, with or without cells in the cohort
    samples = design.samples.splitCsv(header: true, sep: '\t', quote: '\u0000').map { row -> row.sample }

    TEST_COMPOSITION(cohort.annotation, design.samples, design.phases, design.contrasts, tumour.labels)
    SCORE_TCELLS(cohort.merged, cohort.annotation, design.samples, design.phases, design.contrasts, assets.tcell_states)

    SCORE_COMMUNICATION(
        samples.combine(cohort.merged).combine(cohort.annotation), design.samples,
        assets.lr_table, assets.lr_complexes, assets.lr_cofactors,
    )
    // sorted by sample: the order of finishing changes no hash
    scored = SCORE_COMMUNICATION.out.links.toSortedList { a, b -> a[0] <=> b[0] }
    links = scored.map { rows -> rows.collect { row -> row[1] } }
    groups = scored.map { rows -> rows.collect { row -> row[2] } }
    COMPARE_COMMUNICATION(
        cohort.merged, cohort.annotation, assets.lr_table, assets.lr_complexes, assets.lr_cofactors,
        links, groups, design.samples, design.phases, design.contrasts,
    )

    // per patient, over its phases
    cells = cohort.merged.combine(cohort.annotation)
    MAP_FATES(
        tumour.calls.combine(cells).map { patient, malignant, clones, merged, annotation -> [patient, merged, annotation, malignant, clones] },
        cohort.embedding, tumour.states, tumour.modules, design.samples, design.phases,
    )

    emit:
    weighed = TEST_COMPOSITION.out.proportions
        .mix(SCORE_TCELLS.out.values)
        .mix(COMPARE_COMMUNICATION.out.flow)
        .mix(COMPARE_COMMUNICATION.out.ranknet) // tables that the resistance card reads
}
