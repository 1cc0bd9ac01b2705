# find, S8: slabs are as many bytes apart as 1 << SHIFT; a flag in each says whether it may be used.
# CPUs -1 and -2 select zero slabs below the first.
    movsxd {slab}, dword ptr fs:[{handle} + {INDEX}]
    shl {slab}, {SHIFT}
    add {slab}, qword ptr [rip + {base}]
    cmp byte ptr [{slab}], 1
    jne 6f
