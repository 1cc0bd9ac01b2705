# linked_pop_all: take all nodes of the linked list that starts in one word of this index's row.
#
#   node = row[word]
#   if node is null: leave with EMPTY
#   row[word] = null                                # commit
    mov {node}, [{outcome} + {word}]
    test {node}, {node}
    jz 7f
    mov qword ptr [{outcome} + {word}], 0               # commit
    .pushsection .text.unlikely, "ax", @progbits
6:  mov {outcome:e}, {MOVED}
    jmp 4f
7:  mov {outcome:e}, {UNFIT}
    jmp 4f
    .popsection
