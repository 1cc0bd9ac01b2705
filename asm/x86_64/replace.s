# replace: give one list of this CPU's slab another array, if its top is still where we think it is.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   if slab.top[list] != expected: leave with CHANGED
#   slab.top[list] = new                            # commit
#
# The slab stays in `outcome`: it is even, and so are all outcomes that are not a miss.
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {outcome}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{outcome}]
    jne 6f
    cmp {expected}, [{outcome} + {list}*8 + {TOPS}]
    jne 7f
    mov [{outcome} + {list}*8 + {TOPS}], {new}      # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
