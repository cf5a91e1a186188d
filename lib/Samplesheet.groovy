// The user's samplesheet as CHECK_DESIGN wants it: rows sorted, paths looked up, nothing judged.
// Only the launcher can see whether a path exists (a task may run in a container or a cloud), so it looks and
// CHECK_DESIGN speaks.

import java.nio.file.Files
import java.nio.file.Path
import java.security.MessageDigest
import nextflow.Global
import nextflow.Nextflow

class Samplesheet {

    static final List<String> FILE_COLUMNS = ['path', 'raw_path', 'metrics']

    /**
     * Read a samplesheet (CSV, or TSV by its ending).
     *
     * Returns [table: path of the canonical table, files: [[sample: id, path: Path, raw_path: Path or null, ..., state: text], ...]].
     *
     * The canonical table lies in the work folder under a name made of its content without the row numbers, and
     * CHECK_DESIGN reads it with `cache 'lenient'` (name and size): a re-ordered samplesheet is then the same input,
     * while the row numbers in an error message are always those of the file just given, since failed tasks are never cached.
     */
    static Map read(Path sheet) {
        def rows = parse(sheet)
        def header = rows.remove(0).collect { it.trim() }
        def problems = []
        header.countBy { it }.findAll { name, n -> n > 1 }.each { name, n -> problems << "column '${name}' is named ${n} times in the header".toString() }
        def records = []
        rows.eachWithIndex { row, index ->
            if (row.every { it.trim() == '' }) { return }
            if (row.size() != header.size()) {
                problems << "row ${index + 2}: ${row.size()} fields, the header has ${header.size()} (a comma inside a value needs quotes around the value)".toString()
                return
            }
            def record = [header, row*.trim()].transpose().collectEntries { it }
            record._row = String.format('%06d', index + 2)
            records << record
        }
        if (problems) {
            throw new IllegalArgumentException("The samplesheet ${sheet.name} cannot be read:\n" + problems.collect { "  - ${it}" }.join('\n'))
        }
        def files = []
        records.each { record ->
            def found = [sample: record.sample]
            FILE_COLUMNS.findAll { it in header }.each { column ->
                def path = record[column] ? resolve(sheet, record[column]) : null
                record["_${column}_found".toString()] = path == null ? '' : !path.exists() ? 'missing' : path.isDirectory() ? 'directory' : 'file'
                found[column] = path
            }
            found.state = found.path?.exists() ? state(found.path) : ''
            files << found
        }
        def columns = (header + FILE_COLUMNS.findAll { it in header }.collect { "_${it}_found".toString() }).sort()
        def sorted = records.sort { a, b -> (a.sample ?: '') <=> (b.sample ?: '') ?: columns.collect { a[it] }.join('\t') <=> columns.collect { b[it] }.join('\t') }
        def line = { record, names -> names.collect { (record[it] ?: '').replaceAll(/[\t\r\n]/, ' ') }.join('\t') }
        def content = columns.join('\t') + '\n' + sorted.collect { line(it, columns) }.join('\n') + '\n'
        def digest = MessageDigest.getInstance('SHA-256').digest(content.getBytes('UTF-8')).encodeHex().toString().take(16)
        def table = Global.session.workDir.resolve("samplesheets/${digest}.tsv")
        Files.createDirectories(table.parent)
        table.text = (['_row'] + columns).join('\t') + '\n' + sorted.collect { line(it, ['_row'] + columns) }.join('\n') + '\n'
        return [table: table, files: files.sort { it.sample }]
    }

    /**
     * Names, sizes and times of the files of a folder: Nextflow knows a folder by its own time alone, which stays
     * when a file inside it is overwritten. Empty for a file and for a remote folder.
     */
    private static String state(Path place) {
        if (!place.isDirectory() || place.fileSystem != java.nio.file.FileSystems.default) { return '' }
        def found = []
        place.eachFileRecurse { file -> if (Files.isRegularFile(file)) { found << "${place.relativize(file)} ${Files.size(file)} ${file.lastModified()}".toString() } }
        return found.sort().join('\n').md5()
    }

    /** A path of a sheet: absolute or remote as it is, else beside the sheet; whether it exists is not asked. */
    static Path resolve(Path sheet, String text) {
        def remote = text ==~ /^[A-Za-z][A-Za-z0-9+.-]*:\/\/.*/
        def place = remote || text.startsWith('/') ? text : sheet.toAbsolutePath().parent.resolve(text).normalize().toUriString()
        return Nextflow.file(place, glob: false) as Path
    }

    private static List<List<String>> parse(Path sheet) {
        def text = sheet.getText('UTF-8').replaceFirst('^\uFEFF', '')
        def separator = sheet.name ==~ /(?i).*\.(tsv|tab|txt)$/ ? '\t' : ','
        if (separator == ',' && !text.readLines().find()?.contains(',') && text.readLines().find()?.contains(';')) {
            throw new IllegalArgumentException("The samplesheet ${sheet.name} is separated by semicolons. Save it as CSV with commas, or as TSV.")
        }
        return fields(text, separator, "The samplesheet ${sheet.name}")
    }

    /** Rows of fields; quotes as in RFC 4180, so that a value may hold the separator, quotes and line breaks. */
    static List<List<String>> fields(String text, String separator, String what) {
        def rows = [], row = [], field = new StringBuilder(), quoted = false
        for (int i = 0; i < text.size(); i++) {
            def c = text[i]
            if (quoted) {
                if (c == '"' && i + 1 < text.size() && text[i + 1] == '"') { field << '"'; i++ }
                else if (c == '"') { quoted = false }
                else { field << c }
            }
            else if (c == '"' && field.length() == 0) { quoted = true }
            else if (c == separator) { row << field.toString(); field.length = 0 }
            else if (c == '\n') { row << field.toString(); field.length = 0; rows << row; row = [] }
            else if (c != '\r') { field << c }
        }
        if (quoted) { throw new IllegalArgumentException("${what} has an opening quote that is never closed.") }
        if (field.length() || row) { row << field.toString(); rows << row }
        if (!rows) { throw new IllegalArgumentException("${what} is empty.") }
        return rows
    }
}
