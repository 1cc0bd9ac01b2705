# push, 16 bit.
    lea {head}, [{slab} + {list}*4]
    movzx {tmp:e}, word ptr [{head} + {HEADERS}]
    cmp {tmp:x}, [{head} + {HEADERS} + 2]
    jae 7f
    mov [{slab} + {tmp}*8], {object}
    inc {tmp:e}
    mov [{head} + {HEADERS}], {tmp:x}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
7:  mov {slab:e}, {UNFIT}
    jmp 4f
    .popsection
