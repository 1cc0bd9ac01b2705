// take: remove the last item of the buffer that begins at one word of this index's row.
//
//   length = row[word]                              // the items follow it
//   if length is 0: leave with EMPTY
//   item = row[word + length]
//   row[word] = length - 1                          // commit
    add {tmp}, {tmp}, {word}
    ldr {id}, [{tmp}]
    mov {outcome:w}, {UNFIT}
    cbz {id}, 4f
    ldr {item}, [{tmp}, {id}, lsl 3]
    sub {id}, {id}, 1
    mov {outcome:w}, {DONE}
    str {id}, [{tmp}]                               // commit
