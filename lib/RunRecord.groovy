// What was run, for the delivered folder: every parameter by name, files without their folders (no path of a machine leaves it).

import groovy.json.JsonOutput
import java.nio.file.Files
import java.nio.file.Path
import nextflow.Global
import nextflow.Nextflow

class RunRecord {

    static void write(workflow, Map params, Path schemaFile) {
        def known = Parameters.describe(schemaFile)
        def values = params.findAll { name, value -> known.containsKey(name) && name != 'help' }.collectEntries { name, value ->
            def isPath = known[name].format in ['file-path', 'directory-path'] || name == 'celltypist_models'
            [name, isPath && value ? value.toString().tokenize(',').collect { it.trim().tokenize('/').last() }.join(',') : value]
        }.sort()
        def record = [pipeline: workflow.manifest.name, version: workflow.manifest.version, nextflow: workflow.nextflow.version.toString(),
                      profile: workflow.profile, parameters: values, code: codeDigests()]
        Path folder = Nextflow.file("${params.outdir}/pipeline_info") as Path
        Files.createDirectories(folder)
        folder.resolve('params.json').text = JsonOutput.prettyPrint(JsonOutput.toJson(record)) + '\n'
    }

    /** Digest of the package modules behind each step (conf/code.config). */
    private static Map codeDigests() {
        def process = Global.session.config.process as Map
        return process.findAll { key, value -> key.toString().startsWith('withName:') && value instanceof Map && value.ext?.code }
            .collectEntries { key, value -> [key.toString() - 'withName:', value.ext.code] }.sort()
    }
}
