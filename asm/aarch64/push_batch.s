// push_batch: put up to `max` objects on top of one list of this CPU's slab.
//
//   slab = thread.slab
//   if slab.id != area.index: leave with MOVED      // other CPU, stopped, or not registered
//   top  = slab.top[list]
//   for count in 0..max:
//       if *top is odd: break                       // the sentinel above the list
//       *top = objects[count]                       // above the list: nobody reads it
//       top = top + 1
//   slab.top[list] = top                            // commit
    mov {count}, {MOVED_COUNT}
    ldr {tmp:w}, [{area}, {INDEX}]
    ldr {slab}, [{cell}]
    ldar {id:w}, [{slab}]                           // acquire: pairs with `start`
    cmp {tmp:w}, {id:w}
    b.ne 4f
    add {slab}, {slab}, {list}, lsl 3
    ldr {top}, [{slab}, {TOPS}]
    mov {count}, 0
7:  cmp {count}, {max}
    b.eq 8f
    ldr {tmp}, [{top}]
    tbnz {tmp}, 0, 8f
    ldr {tmp}, [{objects}, {count}, lsl 3]
    str {tmp}, [{top}], 8
    add {count}, {count}, 1
    b 7b
8:  str {top}, [{slab}, {TOPS}]                     // commit
