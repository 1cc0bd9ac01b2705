# push, linked: never full.
    lea {slab}, [{slab} + {list}*8]
    mov {tmp}, [{slab} + {HEADERS}]
    mov [{object}], {tmp}
    mov [{slab} + {HEADERS}], {object}   # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
    .popsection
