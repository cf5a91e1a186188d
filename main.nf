#!/usr/bin/env nextflow

// scresist: why does this tumour resist? Parameters -> design -> samples -> cohort -> report.

include { SIMULATE } from './modules/simulate'
include { DESIGN   } from './modules/design'
include { SAMPLE   } from './modules/sample'
include { COHORT   } from './modules/cohort'
include { REPORT   } from './modules/report'

// A file parameter, or the bundled default.
def given(value, bundled) {
    return file(value ?: "${projectDir}/assets/${bundled}", checkIfExists: true)
}

// An optional file parameter: an empty list is Nextflow's word for no file.
def optional(value) {
    return value ? file(value, checkIfExists: true) : []
}

workflow {
    def schema = file("${projectDir}/nextflow_schema.json")
    if (params.help) {
        println(Parameters.help(schema, workflow.manifest.version))
        exit(0)
    }
    def problems = Parameters.problems(params, schema)
    if (!params.demo && !params.input) {
        problems << '--input: required: the samplesheet (or -profile demo for a simulated cohort)'
    }
    if (problems) {
        error("${problems.size()} problem(s) with the parameters; nothing was run:\n" + problems.collect { text -> "  - ${text}" }.join('\n'))
    }

    def positions = given(params.gene_positions, 'gene_positions.tsv.gz')
    def markers = given(params.markers, 'markers.tsv')
    def label_map = given(params.label_map, 'label_map.tsv')
    def models = params.celltypist_models ? params.celltypist_models.tokenize(',').collect { path -> file(path.trim(), checkIfExists: true) } : []
    def report_texts = ['citations.tsv', 'methods_text.yml', 'multiqc_config.yml', 'report.css'].collect { name -> given(null, name) }
    // --phases is a table when such a file exists, else an ordered list (conf/modules.config passes the list on)
    def phase_table = params.phases && !params.phases.contains(',') && file(params.phases).exists() ? file(params.phases) : given(null, 'phases.tsv')

    def sheet = channel.empty()
    def truth = channel.empty()
    if (params.demo) {
        SIMULATE(positions, markers, optional(params.demo_design))
        sheet = SIMULATE.out.sheet
        truth = SIMULATE.out.truth
    }
    else {
        sheet = channel.of(file(params.input, checkIfExists: true))
    }

    DESIGN(sheet, phase_table, optional(params.contrasts))
    SAMPLE(DESIGN.out.samples, positions, given(null, 'gene_aliases.tsv.gz'), markers, params.ambient)
    COHORT(SAMPLE.out.h5ad, markers, label_map, models)
    REPORT(COHORT.out.merged, SAMPLE.out.cells, truth, report_texts)

    def run = workflow // inside the handler the name means something else
    def given_params = params
    workflow.onComplete {
        RunRecord.write(run, given_params, schema)
        if (run.success) {
            log.info("Report: ${given_params.outdir}/report/report.html")
        }
    }
}
