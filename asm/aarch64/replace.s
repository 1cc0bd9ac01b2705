// replace: give one list of this CPU's slab another array, if its top is still where we think it is.
//
//   slab = thread.slab
//   if slab.id != area.index: leave with MOVED      // other CPU, stopped, or not registered
//   if slab.top[list] != expected: leave with CHANGED
//   slab.top[list] = new                            // commit
    mov {outcome:w}, {MOVED}
    ldr {tmp:w}, [{area}, {INDEX}]
    ldr {slab}, [{cell}]
    ldar {id:w}, [{slab}]                           // acquire: pairs with `start`
    cmp {tmp:w}, {id:w}
    b.ne 4f
    add {slab}, {slab}, {list}, lsl 3
    ldr {tmp}, [{slab}, {TOPS}]
    mov {outcome:w}, {UNFIT}
    cmp {expected}, {tmp}
    b.ne 4f
    mov {outcome:w}, 0
    str {new}, [{slab}, {TOPS}]                     // commit
