# push: put one object on top of one list of this CPU's slab.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   top  = slab.top[list]
#   if *top is odd: leave with FULL                 # the sentinel above the list
#   *top = object                                   # above the list: nobody reads it
#   slab.top[list] = top + 1                        # commit
#
# The slab, and then the address of top[list] less TOPS, stays in `outcome`: it is even, and so are all outcomes that are
# not a miss. One register, as in pop.
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {outcome}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{outcome}]
    jne 6f
    lea {outcome}, [{outcome} + {list}*8]
    mov {tmp}, [{outcome} + {TOPS}]
    test byte ptr [{tmp}], 1
    jnz 7f
    mov [{tmp}], {object}
    add {tmp}, 8
    mov [{outcome} + {TOPS}], {tmp}                 # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
