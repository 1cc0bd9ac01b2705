# push, 16 bit.
    movzx {tmp:e}, word ptr [{slab} + {list}*4 + {HEADERS}]
    cmp {tmp:x}, [{slab} + {list}*4 + {HEADERS} + 2]
    jae 7f
    mov [{slab} + {tmp}*8], {object}
    inc {tmp:e}
    mov [{slab} + {list}*4 + {HEADERS}], {tmp:x}    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
7:  mov {slab:e}, {UNFIT}
    jmp 4f
    .popsection
