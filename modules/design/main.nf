// DESIGN: the samplesheet becomes one element per sample, or one message with everything that is wrong.

include { CHECK_DESIGN } from './check_design'

workflow DESIGN {
    take:
    sheet          // path: the user's samplesheet; an empty channel with an annotated object
    canonical      // path: the samples of an annotated object; an empty channel with a samplesheet
    phase_table    // path, or an empty list
    contrast_table // path, or an empty list

    main:
    read = sheet.map { file -> Samplesheet.read(file) }
    CHECK_DESIGN(read.map { found -> found.table }.mix(canonical), phase_table, contrast_table)

    // [id, [sample: id, path: ..., raw_path: ... or null]]
    files = read.flatMap { found -> found.files.collect { row -> [row.sample, row] } }

    // [[id, patient, phase, batch], thresholds in force, files]; the meta map holds nothing that a threshold could change,
    // so that a new threshold re-runs the steps that use it and no others
    samples = CHECK_DESIGN.out.samples
        .splitCsv(header: true, sep: '\t', quote: '\u0000')
        .map { row -> [row.sample, row] }
        .join(files, failOnDuplicate: true)
        .map { id, row, found ->
            def settings = ['min_genes', 'min_counts', 'max_mt_pct', 'mad_k', 'mad_k_mt', 'expected_doublet_rate', 'saturation_pct', 'reads_in_cells_pct']
            [[id: id, patient: row.patient, phase: row.phase, batch: row.batch], row.subMap(settings), found]
        }

    emit:
    samples                             // [meta, settings, files]
    design = CHECK_DESIGN.out.design    // path: design.json
    // value channels: read by any number of later tasks
    sample_table = CHECK_DESIGN.out.samples.first() // path: samples.tsv
    phases = CHECK_DESIGN.out.phases.first()        // path: phases.tsv
    contrasts = CHECK_DESIGN.out.contrasts.first()  // path: contrasts.tsv
}
