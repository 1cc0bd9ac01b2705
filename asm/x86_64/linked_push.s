# linked_push: put one node in front of the linked list that starts in one word of this index's row.
#
#   node.next = row[word]                           # the node is still the caller's
#   row[word] = node                                # commit
    mov {tmp}, [{outcome} + {word}]
    mov [{node}], {tmp}
    mov [{outcome} + {word}], {node}                    # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
    .popsection
