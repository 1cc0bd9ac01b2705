// pop: take the newest object of one list of this CPU's slab.
//
//   slab = thread.slab
//   if slab.id != area.index: leave with MOVED      // other CPU, stopped, or not registered
//   top  = slab.top[list]
//   item = top[-1]
//   if item is odd: leave with it                   // the sentinel below the list: EMPTY
//   slab.top[list] = top - 1                        // commit, the only store
//
// The outcome of a miss is set beforehand: a conditional branch may not reach the cold section.
    mov {item:w}, {MOVED}
    ldr {tmp:w}, [{area}, {INDEX}]
    ldr {slab}, [{cell}]
    ldar {id:w}, [{slab}]                           // acquire: pairs with `start`
    cmp {tmp:w}, {id:w}
    b.ne 4f
    add {slab}, {slab}, {list}, lsl 3
    ldr {tmp}, [{slab}, {TOPS}]
    ldr {item}, [{tmp}, -8]!
    tbnz {item}, 0, 4f
    str {tmp}, [{slab}, {TOPS}]                     // commit
