# compare_exchange: write one word of this index's row if it is what we expect.
#
#   if row[word] != expected: leave with CHANGED
#   row[word] = new                                 # commit
    cmp {expected}, [{outcome} + {word}]
    jne 7f
    mov [{outcome} + {word}], {new}                     # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
