# take: remove the last item of the buffer that begins at one word of this index's row.
#
#   length = row[word]                              # the items follow it
#   if length is 0: leave with EMPTY
#   item = row[word + length]
#   row[word] = length - 1                          # commit
    add {outcome}, {word}
    mov {tmp}, [{outcome}]
    test {tmp}, {tmp}
    jz 7f
    mov {item}, [{outcome} + {tmp}*8]
    dec {tmp}
    mov [{outcome}], {tmp}                          # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
