// abort: the kernel lands here when it interrupted the sequence. Last part of every sequence.
//
//   restarts += 1                           // outside the sequence, so an atomic add is exact
//   goto restart
//
// The four bytes before the entry are the signature, itself a breakpoint instruction. x16 and x17 are
// free: a linker may spend them on a far branch anyway.
4:
    .pushsection .text.unlikely, "ax", @progbits
    .inst {SIGNATURE}
5:  adrp x16, rseq_sequence_restarts
    add x16, x16, :lo12:rseq_sequence_restarts
8:  ldxr x17, [x16]
    add x17, x17, 1
    stxr {tmp:w}, x17, [x16]
    cbnz {tmp:w}, 8b
    b 2b
    .popsection
