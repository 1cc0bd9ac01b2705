# pop, linked: the header points to the first object, whose first word points to the next.
    mov {item}, [{slab} + {list}*8 + {HEADERS}]
    test {item}, {item}
    jz 7f
    mov {tmp}, [{item}]
    mov [{slab} + {list}*8 + {HEADERS}], {tmp}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
7:  mov {item:e}, {UNFIT}
    jmp 4f
    .popsection
