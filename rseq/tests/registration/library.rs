//! Code that is loaded and unloaded.

use super::*;

/// Builds the library of `examples/plugin.rs` and says where it is.
fn plugin() -> PathBuf {
    let mut directory = env::current_exe().expect("this program"); // <target>/<profile>/deps/<name>
    directory.pop();
    directory.pop();
    let release = directory.ends_with("release");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--example", "plugin"]);
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    command.arg("--target-dir").arg(directory.parent().expect("a target directory"));
    if release {
        command.arg("--release");
    }
    assert!(command.status().expect("cargo runs").success(), "{command:?}");
    directory.join("examples").join("libplugin.so")
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
    if kernel_registers(NAME) {
        let path = plugin();
        let role = path.to_str().expect("a plain path");
        expect(again(NAME, role));
        let mut command = again(NAME, role);
        command.env(OWN.0, OWN.1);
        expect(command);
    }
}
