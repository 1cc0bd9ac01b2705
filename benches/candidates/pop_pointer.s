# pop, pointer: the header points to the first free slot; the slot below the first object is odd.
    lea {slab}, [{slab} + {list}*8]
    mov {tmp}, [{slab} + {HEADERS}]
    mov {item}, [{tmp} - 8]
    test {item:l}, 1
    jnz 4f
    sub {tmp}, 8
    mov [{slab} + {HEADERS}], {tmp}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
