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
    mov {outcome}, [{slab} + {list}*8 + {TOPS}]
    test byte ptr [{outcome}], 1
    jnz 7f
    mov [{outcome}], {object}
    add {outcome}, 8
    mov [{slab} + {list}*8 + {TOPS}], {outcome}     # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
