# pop: take the newest object of one list of this CPU's slab.
#
#   slab = thread.slab
#   if slab.id != area.index: leave with MOVED      # other CPU, stopped, or not registered
#   top  = slab.top[list]
#   item = top[-1]
#   if item is odd: leave with it                   # the sentinel below the list: EMPTY
#   slab.top[list] = top - 1                        # commit, the only store
#
# The address of top[list] is in one register: some processors forward a store to the load that follows it for nothing,
# but not where an address has an index (cargo bench --bench sequences, "I, indexed").
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {slab}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{slab}]
    jne 6f
    lea {slab}, [{slab} + {list}*8]
    mov {tmp}, [{slab} + {TOPS}]
    mov {item}, [{tmp} - 8]
    test {item:l}, 1
    jnz 4f
    sub {tmp}, 8
    mov [{slab} + {TOPS}], {tmp}                    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {item:e}, {MOVED}
    jmp 4f
    .popsection
