// row: find the row of the index the thread is on. Second part of every sequence on rows.
//
//   if area.index >= rows: leave with MOVED         // beyond the reservation, or not registered
//   row = base + (area.index << SHIFT)
//   if row.stopped: leave with MOVED
//
// The row is in `tmp`; the outcome is set beforehand, as in pop.
    mov {outcome:w}, {MOVED}
    ldr {id:w}, [{area}, {INDEX}]
    cmp {id}, {rows}
    b.hs 4f
    lsl {tmp}, {id}, {SHIFT}
    add {tmp}, {tmp}, {base}
    ldar {id:w}, [{tmp}]                            // acquire: pairs with the guard's release
    cbnz {id:w}, 4f
