//! The life of the process: its first allocation, what it may be told, thread exit, fork, memory exhausted, its end.

pub mod background;
pub mod cgroup;
pub mod check;
pub mod children;
pub mod choice;
pub mod control;
pub mod deferred;
mod environment;
pub mod exhaustion;
pub mod exit_report;
pub mod fork;
pub mod heap_profile;
mod misused;
pub mod options;
mod output_path;
mod own_thread;
pub mod reporter;
mod resident;
pub mod start;
pub mod thread_exit;
