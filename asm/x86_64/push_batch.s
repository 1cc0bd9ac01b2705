# push_batch: put up to `max` objects on top of one list of this CPU's slab.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   top  = slab.top[list]
#   for count in 0..max:
#       if *top is odd: break                       # the sentinel above the list
#       *top = objects[count]                       # above the list: nobody reads it
#       top = top + 1
#   slab.top[list] = top                            # commit
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {slab}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{slab}]
    jne 6f
    mov {top}, [{slab} + {list}*8 + {TOPS}]
    xor {count:e}, {count:e}
7:  cmp {count}, {max}
    je 8f
    test byte ptr [{top}], 1
    jnz 8f
    mov {tmp}, [{objects} + {count}*8]
    mov [{top}], {tmp}
    add {top}, 8
    inc {count}
    jmp 7b
8:  mov [{slab} + {list}*8 + {TOPS}], {top}         # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {count}, {MOVED_COUNT}
    jmp 4f
    .popsection
