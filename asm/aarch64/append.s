// append: add one item to the end of the buffer that begins at one word of this index's row.
//
//   length = row[word]                              // the items follow it
//   if length >= capacity: leave with FULL
//   row[word + 1 + length] = item                   // beyond the length: nobody reads it
//   row[word] = length + 1                          // commit
    add {tmp}, {tmp}, {word}
    ldr {id}, [{tmp}]
    mov {outcome:w}, {UNFIT}
    cmp {id}, {capacity}
    b.hs 4f
    add {outcome}, {tmp}, {id}, lsl 3
    str {item}, [{outcome}, 8]
    add {id}, {id}, 1
    mov {outcome:w}, {DONE}
    str {id}, [{tmp}]                               // commit
