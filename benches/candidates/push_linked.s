# push, linked: never full.
    mov {tmp}, [{slab} + {list}*8 + {HEADERS}]
    mov [{object}], {tmp}
    mov [{slab} + {list}*8 + {HEADERS}], {object}   # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
    .popsection
