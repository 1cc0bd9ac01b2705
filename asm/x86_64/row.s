# row: find the row of the index the thread is on. Second part of every sequence on rows.
#
#   if area.index >= rows: leave with MOVED         # beyond the reservation, or not registered
#   row = base + (area.index << SHIFT)
#   if row.stopped: leave with MOVED
#
# The row stays in `outcome`: an address is even, and so are all outcomes that are not a miss.
    mov {outcome:e}, fs:[{handle} + {INDEX}]
    cmp {outcome}, {rows}
    jae 6f
    shl {outcome}, {SHIFT}
    add {outcome}, {base}
    cmp dword ptr [{outcome}], 0
    jne 6f
