// store: write one word of this index's row, while on that index.
//
//   row[word] = value                               // commit
    mov {outcome:w}, {DONE}
    str {value}, [{tmp}, {word}]                    // commit
