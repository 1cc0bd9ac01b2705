// Every C function of libperseq, once: the library makes its symbols of this list, the header is written from it,
// and a test holds the shared object's symbol table against it.

c_family! {
    // Under the C library's name, and under that name with `perseq_` before it.
    standard {
        /// `size` bytes, aligned to 16. Null with ENOMEM if there are none; size 0 is a block of its own.
        malloc(size: usize) -> *mut c_void;
        /// `count * size` zeroed bytes, aligned to 16; zero up to malloc_usable_size. Null with ENOMEM if the product
        /// overflows.
        calloc(count: usize, size: usize) -> *mut c_void;
        /// Frees a block. Null is allowed. Leaves errno alone.
        free(pointer: *mut c_void);
        /// Resizes a block, moving it if it must. To size 0: frees it and returns null.
        realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
        /// realloc to `count * size` bytes. Null with ENOMEM if the product overflows; the block stays.
        reallocarray(pointer: *mut c_void, count: usize, size: usize) -> *mut c_void;
        /// C23: free, given the size that was asked for.
        free_sized(pointer: *mut c_void, size: usize);
        /// C23: free, given the alignment and size that were asked for.
        free_aligned_sized(pointer: *mut c_void, align: usize, size: usize);
        /// `size` bytes aligned to `align`, a power of two, else EINVAL. The size need not be a multiple, as in glibc.
        aligned_alloc(align: usize, size: usize) -> *mut c_void;
        /// Stores `size` bytes aligned to `align` in `*out`. Returns 0, EINVAL or ENOMEM and leaves errno alone; on error
        /// `*out` stays.
        posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int;
        /// aligned_alloc with `align` rounded up to a power of two.
        memalign(align: usize, size: usize) -> *mut c_void;
        /// `size` bytes on a boundary of the kernel's pages.
        valloc(size: usize) -> *mut c_void;
        /// Whole kernel pages, at least `size` bytes.
        pvalloc(size: usize) -> *mut c_void;
        /// Bytes that may be used at `pointer`, at least as many as were asked for. 0 for null.
        malloc_usable_size(pointer: *mut c_void) -> usize;
        /// Gives all unused memory back to the kernel; `keep` is not used. 1 if there was any, else 0.
        malloc_trim(keep: usize) -> c_int;
        /// 1 for the parameters of glibc's malloc, whose values change nothing here; 0 for others, and for an M_MXFAST
        /// above 160 or below 0, as in glibc.
        mallopt(parameter: c_int, value: c_int) -> c_int;
        /// As mallinfo2; numbers above INT_MAX are INT_MAX.
        mallinfo() -> mallinfo;
        /// arena: bytes committed. uordblks: in the program's hands. fordblks: the rest of the arena. keepcost: free
        /// pages that malloc_trim gives back. ordblks: free blocks, wherever they are kept, and free pages. smblks,
        /// fsmblks: 0, there are no fastbins. hblks, hblkhd: 0, no block has a mapping of its own. usmblks: the most
        /// bytes held at once.
        mallinfo2() -> mallinfo2;
        /// Writes statistics as text to standard error.
        malloc_stats();
        /// Writes statistics as XML in the form of glibc's to `stream`. `options` is 0, else -1 with EINVAL.
        malloc_info(options: c_int, stream: *mut FILE) -> c_int;
    }
    // Under this name only.
    own {
        /// The mode that runs, by the name that PERSEQ_MODE has for it: a fallback shows here.
        perseq_mode() -> *const c_char;
        /// The version of the library, as in 0.2.0.
        perseq_version() -> *const c_char;
        /// Moves all free objects from caches to the tiers behind them; returns how many bytes.
        perseq_drain() -> usize;
        /// Writes statistics to the file descriptor: as text, or with `json` not 0 as one line of JSON. 0, or -1 if
        /// the descriptor takes no more.
        perseq_write_stats(file: c_int, json: c_int) -> c_int;
        /// Writes the heap profile that PERSEQ_PROFILE asked for to the file descriptor, as text that pprof reads. 0, or -1
        /// if no profile is taken or the descriptor takes no more. May be called in a signal handler.
        perseq_write_profile(file: c_int) -> c_int;
    }
    // Other names of the same functions: cfree is what programs built before glibc 2.26 may call, and the others are
    // glibc's own names, by which wrappers reach the allocator behind `malloc`.
    aliases {
        cfree = free(pointer: *mut c_void);
        __libc_malloc = malloc(size: usize) -> *mut c_void;
        __libc_calloc = calloc(count: usize, size: usize) -> *mut c_void;
        __libc_free = free(pointer: *mut c_void);
        __libc_realloc = realloc(pointer: *mut c_void, size: usize) -> *mut c_void;
        __libc_memalign = memalign(align: usize, size: usize) -> *mut c_void;
        __libc_valloc = valloc(size: usize) -> *mut c_void;
        __libc_pvalloc = pvalloc(size: usize) -> *mut c_void;
    }
}
