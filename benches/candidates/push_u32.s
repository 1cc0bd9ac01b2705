# push, 32 bit: full where the first free slot is the end.
    mov {tmp:e}, [{slab} + {list}*8 + {HEADERS}]
    cmp {tmp:e}, [{slab} + {list}*8 + {HEADERS} + 4]
    jae 7f
    mov [{slab} + {tmp}*8], {object}
    inc {tmp:e}
    mov [{slab} + {list}*8 + {HEADERS}], {tmp:e}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
7:  mov {slab:e}, {UNFIT}
    jmp 4f
    .popsection
