//! glibc's structures of the heap's numbers, in its layout. Other C libraries have none: `perseq.h` declares them there.
#![allow(non_camel_case_types)] // C's names

use core::ffi::c_int;

/// A structure of these numbers.
macro_rules! numbers {
    ($name:ident: $number:ty) => {
        #[repr(C)]
        pub struct $name {
            pub arena: $number,
            pub ordblks: $number,
            pub smblks: $number,
            pub hblks: $number,
            pub hblkhd: $number,
            pub usmblks: $number,
            pub fsmblks: $number,
            pub uordblks: $number,
            pub fordblks: $number,
            pub keepcost: $number,
        }
    };
}

numbers!(mallinfo: c_int);
numbers!(mallinfo2: usize);
