// pop_batch: take up to `max` of the newest objects of one list of this CPU's slab.
//
//   slab = thread.slab
//   if slab.id != area.index: leave with MOVED      // other CPU, stopped, or not registered
//   top  = slab.top[list]
//   for count in 0..max:
//       item = top[-1]
//       if item is odd: break                       // the sentinel below the list
//       objects[count] = item                       // private to the caller
//       top = top - 1
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
    ldr {tmp}, [{top}, -8]
    tbnz {tmp}, 0, 8f
    str {tmp}, [{objects}, {count}, lsl 3]
    sub {top}, {top}, 8
    add {count}, {count}, 1
    b 7b
8:  str {top}, [{slab}, {TOPS}]                     // commit
