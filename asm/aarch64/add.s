// add: add to one word of this index's row.
//
//   row[word] += value                              // the store commits
    ldr {id}, [{tmp}, {word}]
    add {id}, {id}, {value}
    mov {outcome:w}, {DONE}
    str {id}, [{tmp}, {word}]                       // commit
