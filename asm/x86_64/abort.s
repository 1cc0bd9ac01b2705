# abort: the kernel lands here when it interrupted the sequence. Last part of every sequence.
#
#   restarts += 1                           # outside the sequence, so an atomic add is exact
#   goto restart
#
# The four bytes before the entry are the signature, wrapped as an undefined instruction
# so that a disassembler stays in step.
4:
    .pushsection .text.unlikely, "ax", @progbits
    .byte 0x0f, 0xb9, 0x3d                  # ud1 edi, [rip + signature]
    .long {SIGNATURE}
5:  lock inc qword ptr [rip + rseq_sequence_restarts]
    jmp 2b
    .popsection
