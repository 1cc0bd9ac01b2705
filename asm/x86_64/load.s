# load: read one word of this index's row, while on that index.
#
#   value = row[word]                               # nothing to commit
    mov {value}, [{outcome} + {word}]
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
    .popsection
