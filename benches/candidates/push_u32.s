# push, 32 bit: full where the first free slot is the end.
    lea {head}, [{slab} + {list}*8]
    mov {tmp:e}, [{head} + {HEADERS}]
    cmp {tmp:e}, [{head} + {HEADERS} + 4]
    jae 7f
    mov [{slab} + {tmp}*8], {object}
    inc {tmp:e}
    mov [{head} + {HEADERS}], {tmp:e}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
7:  mov {slab:e}, {UNFIT}
    jmp 4f
    .popsection
