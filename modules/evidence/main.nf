// EVIDENCE: other patients' outcome, cell lines under the drug, stained fields; then the card that weighs everything.

include { CHECK_EVIDENCE    } from './check_evidence'
include { TEST_SURVIVAL     } from './test_survival'
include { FIT_DOSE_RESPONSE } from './fit_dose_response'
include { COMPARE_STAINING  } from './compare_staining'
include { SCORE_ROUTES      } from './score_routes'

// Elements that wait for the check of all tables: without its file, which would make one table's edit an edit of every step.
def behind(elements, checked) {
    return elements.combine(checked).map { element -> element.dropRight(1) }
}

workflow EVIDENCE {
    take:
    cohort  // value channels by name: merged, annotation
    design  // value channels by name: samples, phases, contrasts
    tumour  // outputs of TUMOUR by name: malignant, clones, states, modules, genes, panel_tests, weighed
    signals // tables of the microenvironment that the card reads
    studies // by name: sheet, plates, fields (queues: nothing where not given), signatures (list), rules, targets (paths)
    card    // whether the resistance card is drawn

    main:
    // the launcher looks whether files exist; what they hold is told by CHECK_EVIDENCE, which waits for the design alone
    cohorts = studies.sheet.map { sheet -> EvidenceSheet.read(sheet) }
    // one element with everything that was given, none where nothing was
    given = studies.sheet.map { sheet -> [sheet: [sheet]] }
        .mix(
            cohorts.map { rows -> [cohorts: rows] },
            studies.plates.map { files -> [plates: files] },
            studies.fields.map { files -> [fields: files] },
        )
        .collect()
        .map { parts -> parts.inject([sheet: [], cohorts: [], plates: [], fields: []]) { all, part -> all + part } }
    CHECK_EVIDENCE(
        given.map { all -> [all.cohorts.collect { row -> row.dataset }, all.cohorts.collect { row -> row.clinical }] },
        given.map { all ->
            def measured = all.cohorts.findAll { row -> row.expression }
            [measured.collect { row -> row.dataset }, measured.collect { row -> row.expression }]
        },
        given.map { all -> all.sheet }, studies.signatures, given.map { all -> all.plates }, given.map { all -> all.fields },
        design.phases, design.samples,
    )
    checked = CHECK_EVIDENCE.out.checked

    datasets = cohorts.flatMap { rows -> rows.collect { row -> [row.dataset, row.clinical, row.expression] } }
    TEST_SURVIVAL(behind(datasets, checked), given.map { all -> all.sheet }, studies.signatures, tumour.genes)
    FIT_DOSE_RESPONSE(behind(studies.plates, checked))
    COMPARE_STAINING(behind(studies.fields, checked), design.phases, design.samples, tumour.panel_tests)

    if (card) {
        SCORE_ROUTES(
            cohort.merged, cohort.annotation, tumour.malignant, tumour.clones, tumour.states, tumour.modules,
            tumour.weighed.mix(signals).flatten().toSortedList { a, b -> a.name <=> b.name },
            design.samples, design.phases, design.contrasts, studies.rules, studies.targets,
        )
    }
}
