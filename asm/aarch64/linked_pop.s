// linked_pop: take the first node of the linked list that starts in one word of this index's row.
//
//   node = row[word]
//   if node is null: leave with EMPTY
//   row[word] = node.next                           // commit
    mov {outcome:w}, {UNFIT}
    ldr {node}, [{tmp}, {word}]
    cbz {node}, 4f
    ldr {id}, [{node}]
    mov {outcome:w}, {DONE}
    str {id}, [{tmp}, {word}]                       // commit
