//! Neither x86-64 nor aarch64, or not Linux. What the compiler says after this follows from it.

compile_error!(
    "the rseq crate is for Linux on x86-64 and little-endian aarch64, with 64-bit pointers: restartable sequences are \
     Linux's, and each architecture needs its own"
);
