# append: add one item to the end of the buffer that begins at one word of this index's row.
#
#   length = row[word]                              # the items follow it
#   if length >= capacity: leave with FULL
#   row[word + 1 + length] = item                   # beyond the length: nobody reads it
#   row[word] = length + 1                          # commit
    add {outcome}, {word}
    mov {tmp}, [{outcome}]
    cmp {tmp}, {capacity}
    jae 7f
    mov [{outcome} + {tmp}*8 + 8], {item}
    inc {tmp}
    mov [{outcome}], {tmp}                          # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
