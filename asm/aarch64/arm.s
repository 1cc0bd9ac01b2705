// arm: announce the sequence to the kernel. First part of every sequence.
//
//   restart:                                // abort comes back here
//   area.rseq_cs = &descriptor              // start, length, abort
//   start:
//
// The descriptor is this site's own. It is never freed and never written.
    .pushsection __rseq_cs, "aw", @progbits
    .balign 32
9:  .long 0, 0                              // version, flags
    .quad 3f, 4f - 3f, 5f
    .popsection
    .pushsection __rseq_cs_ptr_array, "awR", @progbits
    .balign 8
    .quad 9b                                // for debuggers
    .popsection
2:  adrp {tmp}, 9b
    add {tmp}, {tmp}, :lo12:9b
    str {tmp}, [{area}, {RSEQ_CS}]
3:
