// push: put one object on top of one list of this CPU's slab.
//
//   slab = thread.slab
//   if slab.id != area.index: leave with MOVED      // other CPU, stopped, or not registered
//   top  = slab.top[list]
//   if *top is odd: leave with FULL                 // the sentinel above the list
//   *top = object                                   // above the list: nobody reads it
//   slab.top[list] = top + 1                        // commit
    mov {outcome:w}, {MOVED}
    ldr {tmp:w}, [{area}, {INDEX}]
    ldr {slab}, [{cell}]
    ldar {id:w}, [{slab}]                           // acquire: pairs with `start`
    cmp {tmp:w}, {id:w}
    b.ne 4f
    add {slab}, {slab}, {list}, lsl 3
    ldr {tmp}, [{slab}, {TOPS}]
    ldr {outcome}, [{tmp}]
    and {outcome}, {outcome}, {UNFIT}
    cbnz {outcome}, 4f
    str {object}, [{tmp}], 8
    str {tmp}, [{slab}, {TOPS}]                     // commit
