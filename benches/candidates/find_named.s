# find, I: a word of TLS names the slab used last; the id in it says whether that is this CPU's.
    mov {tmp:e}, fs:[{handle} + {INDEX}]
    mov {slab}, fs:[{cell}]
    cmp {tmp:e}, dword ptr [{slab}]
    jne 6f
