# push, pointer, header addressed with an index register: the slot above the last is odd.
    mov {tmp}, [{slab} + {list}*8 + {HEADERS}]
    test byte ptr [{tmp}], 1
    jnz 7f
    mov [{tmp}], {object}
    add {tmp}, 8
    mov [{slab} + {list}*8 + {HEADERS}], {tmp}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {slab:e}, {MOVED}
    jmp 4f
7:  mov {slab:e}, {UNFIT}
    jmp 4f
    .popsection
