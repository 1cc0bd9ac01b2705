#!/usr/bin/env bash
# Is it the place of the code that makes the same loop differ between experiments?
#
#   experiments/layout-verdict.sh RUN        RUN is the folder of a run; PERSEQ names the command (perseq)
#
# E01 (64 objects of 64 bytes), E07 (0 moves) and E09 (0 signals) call the same copies of the same loop. If the place of
# a copy makes the difference between their ratios, the three agree within a copy. The ratio is the time of percpu over
# that of perthread, by block; below 1 percpu is faster. The noise of a ratio is that of the A/A twin in the same cell.
# Prints every ratio, then Cochran's Q between the experiments, within copies, and how copies go together. A run whose
# loop had one copy has no more than its ratios.
set -euo pipefail
run="${1:?the folder of a run}" perseq="${PERSEQ:-perseq}"
values() {
    "$perseq" -q rows "$run" --modes percpu,perthread --metric "$1" --filter "^($2)/" \
        | awk -v what="$1" '$3 == "ok" {print what, $2, $4}'
}
{
    values /layout 'E01/depth=64/size_bytes=64|E07/moves_per_s=0|E09/signals_per_s=0'
    values ns_per_pair 'E01/depth=64/size_bytes=64|E07/moves_per_s=0'
    values pairs_per_s 'E09/signals_per_s=0'
} | LC_ALL=C awk '
    {
        n = split($2, part, "/"); mode = part[n]; block = part[n - 1]
        if (block !~ /^block=/ || $3 !~ /^[0-9]/) next
        cell = part[1]; sub(/block=/, "", block)
        if ($1 == "/layout") { copy[cell, block] = $3; copies[$3] }
        else time[cell, block, mode] = $1 == "pairs_per_s" ? -log($3) : log($3)
    }
    END {
        names = split("E01 E07 E09", name, " ")
        for (i = 1; i <= names; i++) for (block = 0; block < 1000; block++) {
            c = name[i]
            if (!((c, block, "percpu") in time)) continue
            if ((c, block, "percpu-twin") in time) {
                x = time[c, block, "percpu-twin"] - time[c, block, "percpu"]
                twins[c]++; sum[c] += x; squares[c] += x * x
            }
            if (!((c, block, "perthread") in time)) continue
            x = time[c, block, "percpu"] - time[c, block, "perthread"]; k = copy[c, block]
            count[c, k]++; total[c, k] += x; all[c]++; whole[c] += x; wholesq[c] += x * x
            printf "%s block %d, copy %d: %.3f\n", c, block, k, exp(x)
        }
        for (i = 1; i <= names; i++) {
            c = name[i]
            if (twins[c] < 2 || all[c] < 2) { print "layout-verdict: too few rows of " c > "/dev/stderr"; exit 1 }
            noise[c] = sqrt((squares[c] - sum[c] ^ 2 / twins[c]) / (twins[c] - 1))
            spread = sqrt((wholesq[c] - whole[c] ^ 2 / all[c]) / (all[c] - 1))
            printf "%s: ratio %.3f; standard deviation of blocks %.1f %%, of A/A %.1f %%\n",
                c, exp(whole[c] / all[c]), 100 * spread, 100 * noise[c]
        }
        for (k in copies) several++
        for (at in count) average[at] = total[at] / count[at]
        if (several < 2) { print "one copy: nothing can be said of places"; exit }
        for (k in copies) {
            w = mean = points = 0
            for (i = 1; i <= names; i++) if ((name[i], k) in count) {
                weight[i] = count[name[i], k] / noise[name[i]] ^ 2
                w += weight[i]; mean += weight[i] * average[name[i], k]; points++
            }
            if (points < names) continue
            for (i = 1; i <= names; i++) within += weight[i] * (average[name[i], k] - mean / w) ^ 2
            used++
        }
        if (!used) { print "layout-verdict: no copy ran in all three" > "/dev/stderr"; exit 1 }
        # Two degrees of freedom for each copy, so the tail is a sum.
        term = tail = exp(-within / 2)
        for (i = 1; i < used; i++) { term *= within / 2 / i; tail += term }
        printf "Cochran Q within copies: %.1f, %d degrees of freedom, p = %.2g\n", within, 2 * used, tail
        for (i = 1; i < names; i++) for (j = i + 1; j <= names; j++) {
            n = a = b = aa = bb = ab = 0
            for (k in copies) if ((name[i], k) in count && (name[j], k) in count) {
                x = average[name[i], k]; y = average[name[j], k]
                n++; a += x; b += y; aa += x * x; bb += y * y; ab += x * y
            }
            if (n < 3) { printf "%s and %s: %d copies in both, no correlation\n", name[i], name[j], n; continue }
            r = (n * ab - a * b) / sqrt((n * aa - a * a) * (n * bb - b * b))
            printf "%s and %s: correlation over %d copies %.2f\n", name[i], name[j], n, r
        }
    }'
