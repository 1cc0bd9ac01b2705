# add: add to one word of this index's row.
#
#   row[word] += value                              # commit: one instruction reads, adds and stores
    add [{outcome} + {word}], {value}                   # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
    .popsection
