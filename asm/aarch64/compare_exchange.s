// compare_exchange: write one word of this index's row if it is what we expect.
//
//   if row[word] != expected: leave with CHANGED
//   row[word] = new                                 // commit
    ldr {id}, [{tmp}, {word}]
    mov {outcome:w}, {UNFIT}
    cmp {id}, {expected}
    b.ne 4f
    mov {outcome:w}, {DONE}
    str {new}, [{tmp}, {word}]                      // commit
