# pop, 16 bit: as 32 bit in half the width.
    lea {head}, [{slab} + {list}*4]
    movzx {tmp:e}, word ptr [{head} + {HEADERS}]
    mov {item}, [{slab} + {tmp}*8 - 8]
    test {item:l}, 1
    jnz 4f
    dec {tmp:e}
    mov [{head} + {HEADERS}], {tmp:x}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
