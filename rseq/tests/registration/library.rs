//! Code that is loaded and unloaded.

use std::os::unix::process::ExitStatusExt;

use super::*;

/// Whether this C library loads libraries with static TLS late, and unloads them; says so if not.
fn libc_unloads() -> bool {
    if cfg!(target_env = "musl") {
        kit::not_tested(
            "unloading",
            "code that is unloaded",
            "musl gives late libraries no static TLS and unloads none",
        );
    }
    !cfg!(target_env = "musl")
}

/// Builds the library of `examples/plugin.rs`, to be unloaded or never, and says where it is.
fn plugin(stays: bool) -> PathBuf {
    let mut directory = env::current_exe().expect("this program"); // <target>/<profile>/deps/<name>
    directory.pop();
    directory.pop();
    let release = directory.ends_with("release");
    let mut target = directory.parent().expect("a target directory").to_owned();
    let mut command = Command::new(env!("CARGO"));
    command.args(["rustc", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--example", "plugin"]);
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    if release {
        command.arg("--release");
    }
    if stays {
        target.push("plugin-that-stays");
    }
    command.arg("--target-dir").arg(&target);
    if stays {
        command.args(["--", "-Clink-arg=-Wl,-z,nodelete"]);
    }
    assert!(command.status().expect("cargo runs").success(), "{command:?}");
    target.join(if release { "release" } else { "debug" }).join("examples/libplugin.so")
}

#[test]
fn a_library_comes_and_goes() {
    const NAME: &str = "library::a_library_comes_and_goes";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let path = std::ffi::CString::new(role).expect("no zero byte");
        for _ in 0..4 {
            // SAFETY: our own plugin.
            let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null(), "dlopen");
            // SAFETY: the plugin's functions, with these signatures.
            let (count, sum, forget) = unsafe {
                (
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn(u64)>(libc::dlsym(
                        library,
                        c"plugin_count".as_ptr(),
                    )),
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> u64>(libc::dlsym(
                        library,
                        c"plugin_sum".as_ptr(),
                    )),
                    std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> i32>(libc::dlsym(
                        library,
                        c"plugin_forget".as_ptr(),
                    )),
                )
            };
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        count(1000);
                        assert_eq!(forget(), 0);
                    });
                }
            });
            count(1000);
            assert_eq!(sum(), 4000);
            assert_eq!(forget(), 0);
            // SAFETY: no thread is in the library, and none left it a descriptor.
            assert_eq!(unsafe { libc::dlclose(library) }, 0);
            // The kernel must find nothing to read of what is gone.
            for _ in 0..200 {
                std::thread::yield_now();
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
    });
    if libc_unloads() && kernel_registers(NAME) {
        let path = plugin(false);
        let role = path.to_str().expect("a plain path");
        expect(again(NAME, role));
        let mut command = again(NAME, role);
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}

/// Why code with sequences is not unloaded, and what keeps it: without one of the two, the kernel looks for the
/// descriptor of a sequence that ended long ago.
#[test]
fn a_library_that_goes_unforgotten_takes_the_process_along() {
    const NAME: &str = "library::a_library_that_goes_unforgotten_takes_the_process_along";
    play_if_asked(|role| {
        if role == "probe" {
            return probe_role();
        }
        let path = std::ffi::CString::new(role).expect("no zero byte");
        // SAFETY: our own plugin, and its function of this signature. No thread is in it when it goes.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null(), "dlopen");
            let count = libc::dlsym(library, c"plugin_count".as_ptr());
            std::mem::transmute::<*mut libc::c_void, extern "C" fn(u64)>(count)(1000);
            assert_eq!(libc::dlclose(library), 0);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    });
    if !libc_unloads() || !kernel_registers(NAME) {
        return;
    }
    expect(again(NAME, plugin(true).to_str().expect("a plain path")));
    // A thread that is preempted between its last sequence and the end of the library is safe, and one that is not is
    // lost.
    let path = plugin(false);
    let lost = (0..20).any(|_| {
        let status = again(NAME, path.to_str().expect("a plain path")).output().expect("it starts").status;
        assert!(status.success() || status.signal() == Some(libc::SIGSEGV), "{status}");
        !status.success()
    });
    assert!(lost, "the kernel did not look");
}
