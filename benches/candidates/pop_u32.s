# pop, 32 bit: the header is (first free slot, end) in words from the slab; the slot below the first object is odd.
    lea {head}, [{slab} + {list}*8]
    mov {tmp:e}, [{head} + {HEADERS}]
    mov {item}, [{slab} + {tmp}*8 - 8]
    test {item:l}, 1
    jnz 4f
    dec {tmp:e}
    mov [{head} + {HEADERS}], {tmp:e}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
