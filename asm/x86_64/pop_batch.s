# pop_batch: take up to `max` of the newest objects of one list of this CPU's slab.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   top  = slab.top[list]
#   for count in 0..max:
#       item = top[-1]
#       if item is odd: break                       # the sentinel below the list
#       objects[count] = item                       # private to the caller
#       top = top - 1
#   slab.top[list] = top                            # commit
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {slab}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{slab}]
    jne 6f
    mov {top}, [{slab} + {list}*8 + {TOPS}]
    xor {count:e}, {count:e}
7:  cmp {count}, {max}
    je 8f
    mov {tmp}, [{top} - 8]
    test {tmp:l}, 1
    jnz 8f
    mov [{objects} + {count}*8], {tmp}
    sub {top}, 8
    inc {count}
    jmp 7b
8:  mov [{slab} + {list}*8 + {TOPS}], {top}         # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {count}, {MOVED_COUNT}
    jmp 4f
    .popsection
