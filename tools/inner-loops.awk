# Reads the disassembly of a program for aarch64 and counts the instructions of the inner loops of the NEON
# kernels. Fails if one of them keeps anything on the stack, or if there is no kernel.
#
# The idea: an inner loop takes four inputs of each row, the lanes of a register: it is the shortest stretch
# that ends with a branch backwards and has multiply-adds with the last lane. Its multiply-adds name as many
# inputs as the tile has rows, and as many accumulators as it has registers.
function number(hex,    n, i) {
    n = 0
    for (i = 1; i <= length(hex); i++) n = n * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
    return n
}
function loop(    i, j, from, shortest) {
    for (i = 1; i <= count; i++) {
        if (text[i] !~ /^(b|b\.[a-z]+|cbn?z|tbn?z)\t/ || !match(text[i], /[0-9a-f]+ </)) continue
        target = number(substr(text[i], RSTART, RLENGTH - 2))
        if (target > address[i] || target < address[1]) continue
        for (j = i; j >= 1 && address[j] > target; j--);
        for (from = j; j <= i && text[j] !~ /^fmla.*s\[3\]/; j++);
        if (j <= i && (!shortest || i - from < shortest)) { shortest = i - from; first = from; last = i }
    }
    return shortest
}
function measure(    i, j, part, accumulators, inputs, registers, rows) {
    fmla = single = double = turned = stack = other = registers = rows = 0
    for (i = first; i <= last; i++) {
        if (text[i] ~ /\[sp/) stack++
        if (text[i] ~ /^fmla/) {
            fmla++
            split(text[i], part, /[\t ,]+/)
            if (!(part[2] in accumulators)) { accumulators[part[2]]; registers++ }
            sub(/\..*/, "", part[4])
            if (!(part[4] in inputs)) { inputs[part[4]]; rows++ }
        } else if (text[i] ~ /^(ldr|ldur)\tq/) single++
        else if (text[i] ~ /^ldp\tq/) double++
        else if (text[i] ~ /^(shl|and)\tv/) turned++
        else other++
    }
    row = sprintf("%2d x %2d | %s | %d | %d | %d | %d | %d | %.1f", rows, 4 * registers / rows,
        turned ? "bf16" : "f32", fmla, single, double, turned, other, fmla / (single + double))
    if (!(row in seen)) { seen[row]; rows_of_table[++tiles] = row }
    if (stack) { printf "error: %s: the inner loop uses the stack\n", row > "/dev/stderr"; failed = 1 }
}
/^[0-9a-f]+ <.*>:$/ { if (kernel && loop()) measure(); count = 0; kernel = /kernels::neon::(product|panels)/; next }
kernel && /^ +[0-9a-f]+:\t/ {
    at = $1; sub(/:.*/, "", at)
    line = $0; sub(/^[^\t]*\t/, "", line); sub(/[ \t]*\/\/.*/, "", line)
    address[++count] = number(at); text[count] = line
}
END {
    if (kernel && loop()) measure()
    print "| tile: rows x outputs | weights | fmla | ldr | ldp | shl, and | other | fmla per load |"
    print "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (i = 1; i <= tiles; i++) print "| " rows_of_table[i] " |" | "sort"
    close("sort")
    if (tiles == 0) { print "error: no kernel in the disassembly" > "/dev/stderr"; failed = 1 }
    exit failed
}
