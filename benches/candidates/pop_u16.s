# pop, 16 bit: as 32 bit in half the width.
    movzx {tmp:e}, word ptr [{slab} + {list}*4 + {HEADERS}]
    mov {item}, [{slab} + {tmp}*8 - 8]
    test {item:l}, 1
    jnz 4f
    dec {tmp:e}
    mov [{slab} + {list}*4 + {HEADERS}], {tmp:x}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
