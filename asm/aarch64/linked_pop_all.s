// linked_pop_all: take all nodes of the linked list that starts in one word of this index's row.
//
//   node = row[word]
//   if node is null: leave with EMPTY
//   row[word] = null                                // commit
    mov {outcome:w}, {UNFIT}
    ldr {node}, [{tmp}, {word}]
    cbz {node}, 4f
    mov {outcome:w}, {DONE}
    str xzr, [{tmp}, {word}]                        // commit
