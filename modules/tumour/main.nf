// TUMOUR: copy-number clones through therapy, expression of tumour cells, programs, markers and panels.

include { INFER_CNV             } from './infer_cnv'
include { CALL_MALIGNANT        } from './call_malignant'
include { TRACE_CLONES          } from './trace_clones'
include { SUBCLUSTER_EPITHELIUM } from './subcluster_epithelium'
include { TEST_EXPRESSION       } from './test_expression'
include { FIND_PROGRAMS         } from './find_programs'
include { STRATIFY_MARKER       } from './stratify_marker'
include { TRACK_PANELS          } from './track_panels'
include { ENRICH_GENES          } from './enrich_genes'
include { SCORE_ACTIVITY        } from './score_activity'

// [patient or contrast, file] elements as one sorted list of files: the order of finishing changes no hash.
def files(elements) {
    return elements.toSortedList { a, b -> a[0] <=> b[0] }.map { list -> list.collect { element -> element[1] } }
}

workflow TUMOUR {
    take:
    cohort  // value channels by name: merged, annotation, embedding, clusters
    design  // value channels by name: samples, phases, contrasts
    assets  // paths by name: arms, panels, cell_cycle, gene_sets (list), networks (list)
    markers // list of genes that split the tumour cells

    main:
    patients = design.samples.splitCsv(header: true, sep: '\t', quote: '\u0000').map { row -> row.patient }.unique()
    contrasts = design.contrasts.splitCsv(header: true, sep: '\t', quote: '\u0000').map { row -> row.contrast }

    // per patient, all phases together
    INFER_CNV(patients.combine(cohort.merged).combine(cohort.annotation), assets.arms, assets.panels)
    CALL_MALIGNANT(INFER_CNV.out.profiles)
    profiles = INFER_CNV.out.profiles.map { patient, profile, _scores -> [patient, profile] }
    TRACE_CLONES(profiles.join(CALL_MALIGNANT.out.calls), design.phases, assets.panels)
    malignant = files(CALL_MALIGNANT.out.calls)
    clones = files(TRACE_CLONES.out.clones)

    // the cohort's tumour cells
    SUBCLUSTER_EPITHELIUM(cohort.merged, cohort.annotation, malignant, cohort.embedding, assets.cell_cycle, design.phases)
    states = SUBCLUSTER_EPITHELIUM.out.clusters
    labels = clones.mix(states).flatten().toSortedList { a, b -> a.name <=> b.name }
    clusters = states.mix(cohort.clusters).toSortedList { a, b -> a.name <=> b.name }
    FIND_PROGRAMS(cohort.merged, cohort.annotation, malignant, cohort.embedding, design.samples, design.phases, labels)
    TEST_EXPRESSION(contrasts, design.contrasts, design.samples, cohort.merged, cohort.annotation, malignant, clusters)
    STRATIFY_MARKER(channel.fromList(markers), cohort.merged, cohort.annotation, malignant, FIND_PROGRAMS.out.modules, labels)
    TRACK_PANELS(
        cohort.merged, cohort.annotation, malignant, clones, files(TRACE_CLONES.out.table),
        assets.panels, design.contrasts, design.samples, design.phases,
    )
    SCORE_ACTIVITY(cohort.merged, cohort.annotation, malignant, design.contrasts, design.samples, assets.networks)

    // every list of genes with a score or a direction, whoever made it
    rankings = TEST_EXPRESSION.out.rankings
        .mix(STRATIFY_MARKER.out.rankings)
        .mix(SUBCLUSTER_EPITHELIUM.out.rankings.map { file -> ['epi_clusters', file] })
        .mix(FIND_PROGRAMS.out.rankings.map { file -> ['modules', file] })
    ENRICH_GENES(rankings, assets.gene_sets)

    weighed = TRACE_CLONES.out.shares
        .mix(FIND_PROGRAMS.out.relations)
        .mix(TRACK_PANELS.out.values)
        .mix(TRACK_PANELS.out.clones)
        .mix(SCORE_ACTIVITY.out.activity)

    emit:
    malignant // list of paths: one per patient
    clones    // list of paths: one per patient
    calls  = CALL_MALIGNANT.out.calls.join(TRACE_CLONES.out.clones) // patient, malignant cells, clones
    labels // list of paths: clones of all patients and clusters of tumour cells
    states // path: epi_clusters.parquet
    modules = FIND_PROGRAMS.out.modules // path: modules.parquet
    genes = FIND_PROGRAMS.out.genes // path: modules.tsv
    panel_tests = TRACK_PANELS.out.tests // path: panel_tests.tsv
    weighed // tables that the resistance card reads
}
