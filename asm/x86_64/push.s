# push: put one object on top of one list of this CPU's slab.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   top  = slab.top[list]
#   if *top is odd: leave with FULL                 # the sentinel above the list
#   *top = object                                   # above the list: nobody reads it
#   slab.top[list] = top + 1                        # commit
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {slab}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{slab}]
    jne 6f
    mov {tmp}, [{slab} + {list}*8 + {TOPS}]
    test byte ptr [{tmp}], 1
    jnz 7f
    mov [{tmp}], {object}
    add {tmp}, 8
    mov [{slab} + {list}*8 + {TOPS}], {tmp}         # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {tmp:e}, {MOVED}
    jmp 4f
7:  mov {tmp:e}, {FULL}
    jmp 4f
    .popsection
