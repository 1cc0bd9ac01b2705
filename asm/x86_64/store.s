# store: write one word of this index's row, while on that index.
#
#   row[word] = value                               # commit
    mov [{outcome} + {word}], {value}                   # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
    .popsection
