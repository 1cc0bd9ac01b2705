# pop, pointer, header addressed with an index register: the header points to the first free slot; the slot below the first object is odd.
    mov {tmp}, [{slab} + {list}*8 + {HEADERS}]
    mov {item}, [{tmp} - 8]
    test {item:l}, 1
    jnz 4f
    sub {tmp}, 8
    mov [{slab} + {list}*8 + {HEADERS}], {tmp}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
