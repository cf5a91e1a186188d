// REPORT: everything known joins in one annotated object, one table of cells and one page.

include { ASSEMBLE_COHORT } from './assemble_cohort'
include { CHECK_RECOVERY  } from './check_recovery'
include { BUILD_REPORT    } from './build_report'

// [list of a topic's files] with the files of the two steps that run after the topics have closed.
def appended(topic, assembled, recovered) {
    def last = assembled.mix(recovered).toSortedList { a, b -> a.name <=> b.name }.map { list -> [list] }
    return topic.map { list -> [list] }.combine(last).map { early, late -> early + late }
}

workflow REPORT {
    take:
    merged // path: merged.h5ad
    cells  // [meta, all cells of a sample]
    truth  // path: planted truth; an empty channel where nothing was planted
    assets // list of paths: MultiQC configuration and texts

    main:
    // the topics fill as the other stages run; a step may add several files at once; sorted by name, so that the order of
    // finishing changes no hash
    tables = channel.topic('tables').flatten().toSortedList { a, b -> a.name <=> b.name }
    fragments = channel.topic('fragments').flatten().toSortedList { a, b -> a.name <=> b.name }
    status = channel.topic('status').flatten().toSortedList { a, b -> a.name <=> b.name }
    provenance = channel.topic('provenance').flatten().toSortedList { a, b -> a.name <=> b.name }
    all_cells = cells.toSortedList { a, b -> a[0].id <=> b[0].id }.map { list -> list.collect { _meta, file -> file } }

    ASSEMBLE_COHORT(merged, all_cells, fragments, status)
    CHECK_RECOVERY(ASSEMBLE_COHORT.out.cells, truth, tables)

    BUILD_REPORT(
        appended(tables, ASSEMBLE_COHORT.out.columns, CHECK_RECOVERY.out.table),
        appended(status, ASSEMBLE_COHORT.out.status, CHECK_RECOVERY.out.status),
        appended(provenance, ASSEMBLE_COHORT.out.provenance, CHECK_RECOVERY.out.provenance),
        ASSEMBLE_COHORT.out.cells,
        assets,
    )

    emit:
    report = BUILD_REPORT.out.report    // path: report.html
    recovery = CHECK_RECOVERY.out.table // path: recovery.tsv
}
