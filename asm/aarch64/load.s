// load: read one word of this index's row, while on that index.
//
//   value = row[word]                               // nothing to commit
    mov {outcome:w}, {DONE}
    ldr {value}, [{tmp}, {word}]
