# pop, linked: the header points to the first object, whose first word points to the next.
    lea {slab}, [{slab} + {list}*8]
    mov {item}, [{slab} + {HEADERS}]
    test {item}, {item}
    jz 7f
    mov {tmp}, [{item}]
    mov [{slab} + {HEADERS}], {tmp}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
7:  mov {item:e}, {UNFIT}
    jmp 4f
    .popsection
