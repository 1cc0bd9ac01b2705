// linked_push: put one node in front of the linked list that starts in one word of this index's row.
//
//   node.next = row[word]                           // the node is still the caller's
//   row[word] = node                                // commit
    ldr {id}, [{tmp}, {word}]
    str {id}, [{node}]
    mov {outcome:w}, {DONE}
    str {node}, [{tmp}, {word}]                     // commit
